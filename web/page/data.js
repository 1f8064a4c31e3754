// Fetches MNIST's four files and tells how far it is.

export const FILES = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"];

// Gives the files' bytes; `progress(bytes, total)` is called as they come, total 0 while it is unknown.
export async function fetchData(progress) {
  const got = FILES.map(() => 0);
  const totals = FILES.map(() => 0);
  const tell = () => {
    const total = totals.every((n) => n > 0) ? totals.reduce((a, b) => a + b) : 0;
    progress(got.reduce((a, b) => a + b), total);
  };
  return Promise.all(FILES.map(async (name, i) => {
    const help = "Serve the whole folder, mnist/ included (web/build.sh fills it), for example with python3 -m http.server.";
    let response;
    try {
      response = await fetch(new URL(`mnist/${name}`, import.meta.url));
    } catch (error) {
      throw new Error(`mnist/${name} cannot be fetched (${error.message}). ${help}`);
    }
    if (!response.ok) throw new Error(`mnist/${name}: the server says ${response.status} ${response.statusText}. ${help}`);
    // A server that compresses once more tells the compressed length, which is no total of what arrives here.
    if (!response.headers.get("Content-Encoding")) totals[i] = Number(response.headers.get("Content-Length")) || 0;
    const parts = [];
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      got[i] += value.length;
      tell();
    }
    const bytes = new Uint8Array(got[i]);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    if (totals[i] && totals[i] !== bytes.length) throw new Error(`mnist/${name}: ${bytes.length} bytes came of ${totals[i]}. Load the page again.`);
    return bytes;
  }));
}
