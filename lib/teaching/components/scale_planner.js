// ScalePlanner: a training step on many GPUs, by the closed forms of lib/scaling.py.
//
// An ES module with anywidget's render({ model, el }), behind common.js and number_form.js. Beside
// what every form has, its data holds
//   said    what to say of each limit: {limit: sentence}.

// What does not divide, in the words of lib.scaling, or null.
function problem([L, h, , , , B, gpus, t, p, m, , , node]) {
  if (gpus % (t * p)) return `gpus: expected a multiple of tensor · pipeline = ${t * p}, got ${gpus}`;
  if (h % t) return `tensor: expected a divisor of ${h} heads, got ${t}`;
  if (L % p) return `pipeline: expected a divisor of ${L} layers, got ${p}`;
  const copies = gpus / (t * p);
  if (B % (copies * m)) {
    return `sequences: expected a multiple of data · parts = ${copies * m}, got ${B}`;
  }
  if (gpus > node) {
    for (const [name, size] of [["tensor", t], ["tensor · data", t * copies]]) {
      if (size % node && node % size) {
        return `${name}: expected a divisor or a multiple of ${node} GPUs a node, got ${size}`;
      }
    }
  }
  return null;
}

function count(sizes) {
  const [L, h, width, V, n, B, gpus, t, p, m, stage, again, node, tera, percent] = sizes;
  const [memory, inside, between] = sizes.slice(15, 18).map((giga) => giga * 1e9);
  const latency = sizes[18] / 1e6;
  const used = percent / 100;
  const d = h * width;
  const copies = gpus / (t * p);
  const layers = L / p;
  const tokens = (B / (copies * m)) * n; // of a micro-batch
  const flops = B * n * (6 * (12 * L * d * d + V * d) + 12 * L * n * d);
  const psi = Math.ceil(V / t) * d + n * d + (p === 1 ? 2 * d : 0) +
    layers * ((12 * d * d) / t + (7 * d) / t + 6 * d);

  const full = 20 * d + 16 + (24 * d + 4 * h) / t;
  const alive = Math.min(m, p) * layers;
  const kept = {
    weights: (2 * psi) / (stage >= 3 ? copies : 1),
    gradients: (2 * psi) / (stage >= 2 ? copies : 1),
    optimizer: (12 * psi) / (stage >= 1 ? copies : 1),
    activations: (again ? 2 * d * alive + full : full * alive) * tokens,
  };

  const message = 2 * d * tokens;
  const reductions = (again ? 6 : 4) * layers * m;
  const besideBackward = [2, 1, m, 2 * m][stage];
  const besideForward = [0, 1, 1, m][stage];
  const sent = {
    tensor: reductions * message * ((2 * (t - 1)) / t),
    pipeline: Math.min(p - 1, 2) * m * message,
    data: (besideBackward + besideForward) * 2 * psi * ((copies - 1) / copies),
  };

  const pass = (size, q, k) =>
    (q - 1) * (latency + size / q / inside) + (k - 1) * (latency + size / (q * k) / between);
  const needed = flops / gpus / (tera * 1e12 * used);
  const compute = (needed * (3 + again)) / 3;
  let near = Math.min(t, node);
  const tensor = reductions * 2 * pass(message, near, t / near);
  const wire = gpus <= node ? inside : between;
  const pipeline = Math.min(p - 1, 2) * m * (latency + message / wire);
  const bubble = (compute + tensor + pipeline) * ((p - 1) / m);
  near = gpus <= node ? copies : Math.min(copies, Math.max(1, Math.floor(node / t)));
  const one = layers * pass((2 * psi) / layers, near, copies / near);
  const shows = (window, traffic, buckets) =>
    traffic / buckets + (buckets - 1) * Math.max(0, traffic / buckets - window / buckets);
  const backward = stage >= 2 ? m : 1;
  const forward = stage === 3 ? m : 1;
  const exposed =
    shows(backward * ((needed * (2 + again)) / 3 / m), besideBackward * one, backward * layers) +
    shows(forward * (needed / 3 / m), besideForward * one, forward * layers);
  const waited = compute + tensor + pipeline + bubble;
  const seconds = { compute, tensor, pipeline, bubble, exposed };
  const bytes = Object.values(kept).reduce((sum, one) => sum + one, 0);
  let limit = "memory";
  if (bytes <= memory) {
    limit = Object.keys(seconds).reduce((a, b) => (seconds[b] > seconds[a] ? b : a));
  }
  return {
    copies, psi, kept, bytes, sent, seconds, limit,
    overlapped: waited + exposed,
    step: waited + (besideBackward + besideForward) * one,
    efficiency: needed / (waited + exposed),
    mfu: (needed / (waited + exposed)) * used,
  };
}

const timed = (s) => (s >= 1 ? `${fixed(s, 3)} s` : `${fixed(1000 * s, 3)} ms`);

function answer(sizes, { said }) {
  const trouble = problem(sizes);
  if (trouble !== null) {
    return { texts: {}, shares: {}, sentence: `It cannot be cut so. ${trouble}.` };
  }
  const counts = count(sizes);
  const texts = {
    "copies of the model": counts.copies.toLocaleString("en-GB"),
    "parameters of a GPU": counts.psi.toLocaleString("en-GB"),
    "memory of a GPU": scaled(counts.bytes, 1000, "B"),
    "step, traffic beside computation": timed(counts.overlapped),
    "step, traffic after it": timed(counts.step),
    efficiency: `${fixed(100 * counts.efficiency, 1)} %`,
    "share of the peak (MFU)": `${fixed(100 * counts.mfu, 1)} %`,
  };
  const shares = {};
  for (const [name, bytes] of Object.entries(counts.kept)) {
    texts[name] = scaled(bytes, 1000, "B");
    shares[name] = bytes / counts.bytes;
  }
  for (const [name, bytes] of Object.entries(counts.sent)) {
    texts[`sent: ${name}`] = scaled(bytes, 1000, "B");
  }
  for (const [name, seconds] of Object.entries(counts.seconds)) {
    texts[`time: ${name}`] = timed(seconds);
    shares[`time: ${name}`] = seconds / counts.overlapped;
  }
  const sentence =
    `A step takes ${texts["step, traffic beside computation"]}, at ${texts.efficiency} ` +
    `efficiency, with ${texts["memory of a GPU"]} in a GPU. ${said[counts.limit]}`;
  return { texts, shares, sentence };
}

const render = (view) => numberForm(view, answer);

export default { render };
