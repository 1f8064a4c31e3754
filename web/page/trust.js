// The GPUs that were seen to compute what the CPU computes, in the browser's own storage.

const PLACE = "lenet.checked";
const MOST = 20;

// Their keys, see adapter.js.
export function trusted() {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(kept) ? kept : [];
  } catch {
    return []; // without storage it is looked at each time
  }
}

export function trust(key) {
  try {
    localStorage.setItem(PLACE, JSON.stringify([...trusted().filter((one) => one !== key), key].slice(-MOST)));
  } catch {
    // As above.
  }
}
