// Pipelines that the browser compiles beside each other, before they are asked for one after the other.

// Has `rehearsal` ask for pipelines, each of which is compiled asynchronously instead, and lets go of them when `played`
// has taken them: what the browser compiled is at hand as long as something holds it. Gives what `played` gives.
export async function early(rehearsal, played) {
  const compiling = [];
  const own = GPUDevice.prototype.createComputePipeline;
  GPUDevice.prototype.createComputePipeline = function (wanted) {
    compiling.push(this.createComputePipelineAsync(wanted));
    return {}; // nobody runs it
  };
  try {
    await rehearsal();
  } finally {
    GPUDevice.prototype.createComputePipeline = own;
  }
  // What fails fails again when it is played, and is told there.
  const compiled = await Promise.allSettled(compiling);
  const result = await played();
  compiled.length = 0;
  return result;
}
