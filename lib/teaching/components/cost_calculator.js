// CostCalculator: what a GPT of given sizes costs, by the closed forms of lib/cost.py.
//
// An ES module with anywidget's render({ model, el }), behind common.js and number_form.js. Beside
// what every form has, its data holds
//   places  rows of the table of positions, or as many as there are tokens.

// What lib.cost counts, for a GPT-2 without dropout whose attention is fused.
function count([layers, heads, width, n, batch, vocab, size], places) {
  const d = heads * width;
  const tokens = batch * n;
  const rows = Math.max(places, n);
  const wide = Math.max(4, size); // norms are computed in single precision
  const parameters = (vocab + rows) * d + layers * (12 * d * d + 13 * d) + 2 * d;
  const maps = 2 * tokens * (12 * layers * d * d + vocab * d);
  const product = 2 * tokens * n * d * layers; // logits, or weighted sums
  const forward = maps + 2 * product;
  const step = 3 * maps + 7 * product; // five products backward: logits are computed again
  const attention = size * 5 * tokens * d + 4 * tokens * heads;
  const feedForward = size * tokens * 9 * d;
  const norm = wide * tokens * (2 * d + 2);
  const table = 8 * tokens; // ids
  const activations =
    layers * (attention + feedForward) + (2 * layers + 1) * norm + size * tokens * d + table;
  const shifted = batch * (n - 1) * vocab; // without the last position
  const copies = size < 4 || batch > 1 ? 2 : 1;
  const logits = size * tokens * vocab + copies * wide * shifted + 9 * batch * (n - 1);
  const memory = {
    weights: size * parameters,
    gradients: size * parameters,
    moments: 2 * size * parameters,
    activations,
    logits,
  };
  const peak = Object.values(memory).reduce((sum, bytes) => sum + bytes, 0);
  return { parameters, forward, step, cache: 2 * layers * tokens * d * size, memory, peak };
}

function answer(sizes, { places }) {
  const counts = count(sizes, places);
  const texts = {
    parameters: counts.parameters.toLocaleString("en-GB"),
    "operations, forward": scaled(counts.forward, 1000, "FLOP"),
    "operations, training step": scaled(counts.step, 1000, "FLOP"),
    "cache of keys and values": scaled(counts.cache, 1024, "B"),
    "peak of a training step": scaled(counts.peak, 1024, "B"),
  };
  const shares = {};
  for (const [part, bytes] of Object.entries(counts.memory)) {
    texts[part] = scaled(bytes, 1024, "B");
    shares[part] = bytes / counts.peak;
  }
  const sentence =
    `${texts.parameters} parameters; a training step takes ` +
    `${texts["operations, training step"]} and ${texts["peak of a training step"]} of memory.`;
  return { texts, shares, sentence };
}

const render = (view) => numberForm(view, answer);

export default { render };
