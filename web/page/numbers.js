// The big numbers, and how numbers are written.

export const percent = (share) => `${(100 * share).toFixed(2)} %`;
export const integer = (n) => Math.round(n).toLocaleString("en");
export const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60000)} min ${Math.round(ms % 60000 / 1000)} s`);
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const put = (id, text) => {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
};

// Images a second over the last two seconds.
class Recent {
  constructor() {
    this.marks = [];
  }

  take(images, ms) {
    const { marks } = this;
    if (marks.length && marks.at(-1).images > images) marks.length = 0;
    if (!marks.length || images > marks.at(-1).images) marks.push({ images, ms });
    while (marks.length > 2 && marks[1].ms < ms - 2000) marks.shift();
    const [first, last] = [marks[0], marks.at(-1)];
    return last.ms > first.ms ? 1000 * (last.images - first.images) / (last.ms - first.ms) : 0;
  }
}

const recent = new Recent();

export function showNumbers(run, smooth) {
  put("n-step", integer(run.step));
  put("n-epoch", run.perEpoch ? `epoch ${(run.step / run.perEpoch).toFixed(1)} of ${integer(run.totalSteps / run.perEpoch)}` : "\u00a0");
  put("n-loss", smooth ? smooth.loss.toFixed(smooth.loss < 0.1 ? 4 : 3) : "–");
  put("n-accuracy", smooth ? percent(smooth.accuracy) : "–");
  const epoch = run.epochs.at(-1);
  const probe = run.probes.at(-1);
  const newer = probe && (!epoch || probe.step > epoch.step);
  const first = probe ? `first ${integer(probe.count)}` : "";
  if (epoch) {
    put("n-test", percent(epoch.accuracy));
    put("n-test-sub", `all ${integer(epoch.count)}, epoch ${epoch.epoch}${newer ? `; now ${first}: ${percent(probe.accuracy)}` : ""}`);
  } else {
    put("n-test", probe ? percent(probe.accuracy) : "–");
    put("n-test-sub", probe ? `${first} test pictures` : "after about a second");
  }
  put("n-rate", run.ms ? integer(1000 * run.images / run.ms) : "–");
  put("n-rate-sub", run.ms ? `last seconds: ${integer(recent.take(run.images, run.ms))}` : "mean while it runs");
  const { time98 } = run;
  const reached = time98.epoch ?? time98.probe;
  put("n-time", reached ? `${time98.epoch ? "" : "≈ "}${seconds(reached.ms)}` : "–");
  put("n-time-sub", time98.epoch ? `all ${integer(time98.epoch.count)}, after epoch ${time98.epoch.epoch}`
    : time98.probe ? `first ${integer(time98.probe.count)} test pictures` : "of test pictures");
  put("n-first", run.firstStepMs === undefined ? "–" : seconds(run.firstStepMs));
  put("n-first-sub", run.firstStepLoadMs === undefined ? "after “Train”" : `after “Train”; page open ${seconds(run.firstStepLoadMs)}`);
}
