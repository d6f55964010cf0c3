// The script of `mclip page`: texts become motions in the browser. What lies in the page is all that it needs.
//
// text --tokenizer--> numbers --text.onnx--> CLIP's vector --span.onnx--> z --decoder.onnx--> rows --body.onnx--> places
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web/wasm";
import { Quaternion, Vector3 } from "three";
import { bvh, glb, motionOf, npz, yUp } from "./files.js";
import { floorOf } from "./floor.js";
import { bytesOf, held, page } from "./viewer.js";

export { held, page };

const CARD = 0;
const KINDS = { npz, bvh, glb };
// A function of one v128 constant: what has no SIMD does not take it for WebAssembly.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);
const find = (name) => document.getElementById(name);
const inflated = async (name) => new Uint8Array(await bytesOf(name));

/** What a person can do something about. */
class Refusal extends Error {}

function requireBrowser() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Refusal("This browser's WebAssembly has no SIMD, which the model needs: open the page in Chrome or Edge 91, Firefox 89, Safari 16.4, or newer ones.");
  }
  if (typeof DecompressionStream !== "function") throw new Refusal("This browser cannot unpack the model (no DecompressionStream): open the page in a newer one.");
}

/** Random numbers below 1, the same for the same words: xorshift over FNV-1a of them. */
function chance(words) {
  let state = 2166136261;
  for (const letter of words) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  state ||= 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 2 ** 32;
  };
}

export const model = {
  vectors: new Map(), // of texts, as the encoder gives them
  sessions: {},

  async load() {
    requireBrowser();
    model.told = JSON.parse(new TextDecoder().decode(await inflated("model.json")));
    ort.env.wasm.numThreads = 1; // threads need a server that sends headers
    ort.env.wasm.wasmBinary = (await inflated("runtime.wasm")).buffer;
    model.tokenizer = new Tokenizer(JSON.parse(new TextDecoder().decode(await inflated("tokenizer.json"))), {});
    // Weights of few bits become float32 once, and not in every call.
    const options = { executionProviders: ["wasm"], extra: { session: { disable_quant_qdq: "1" } } };
    for (const name of ["text", "span", "decoder", "body"]) {
      model.sessions[name] = await ort.InferenceSession.create(await inflated(`${name}.onnx`), options);
      document.querySelector(`script[data-file="${name}.onnx"]`).remove(); // a phone has better uses for the memory
    }
    const { dataset } = document.querySelector(".card");
    model.look = { height: JSON.parse(dataset.path)[0][1], from: JSON.parse(dataset.from) };
    model.templates = {};
    for (const link of document.querySelectorAll(".card a[data-of]")) {
      model.templates[link.textContent.trim()] = { key: link.dataset.of, bytes: await bytesOf(link.dataset.of) };
    }
  },

  async run(name, inputs) {
    const feeds = Object.fromEntries(Object.entries(inputs).map(([key, [type, data, dims]]) => [key, new ort.Tensor(type, data, dims)]));
    const outputs = await model.sessions[name].run(feeds);
    return Object.fromEntries(Object.entries(outputs).map(([key, { data }]) => [key, data]));
  },

  /** A text's vector as the encoder gives it. */
  async vector(text) {
    requireText(text, model.told.longestText);
    if (!model.vectors.has(text)) {
      const { ids } = model.tokenizer.encode(text);
      const cut = ids.length > model.told.context ? [...ids.slice(0, model.told.context - 1), ids.at(-1)] : ids;
      const found = await model.run("text", { input_ids: ["int64", BigInt64Array.from(cut, BigInt), [1, cut.length]] });
      model.vectors.set(text, found.text);
    }
    return model.vectors.get(text);
  },

  /** z of a text, carried to where the training motions lie; a seed leads to others of them that are near. */
  async z(text, seed = "") {
    const { width, kept, reach, lead } = model.told;
    const random = chance(`${seed} ${text}`);
    const gumbel = () => -reach * Math.log(-Math.log(random()));
    const normal = () => (lead * Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random())) / Math.sqrt(kept);
    const drawn = (give) => Float32Array.from({ length: kept }, seed === "" ? () => 0 : give);
    const vector = await model.vector(text);
    const inputs = { text: vector, reach: drawn(gumbel), lead: drawn(normal) };
    const { z } = await model.run("span", Object.fromEntries(Object.entries(inputs).map(([name, data]) => [name, ["float32", data, [1, name === "text" ? width : kept]]])));
    return z;
  },

  /** The motion of z on the floor, and the places of its joints (frames x joints x 3), metres, z up. */
  async decode(z) {
    const { width, frames, fps, joints, floor } = model.told;
    const { motion } = await model.run("decoder", { z: ["float32", z, [1, width]], frames: ["float32", new Float32Array(frames), [frames]] });
    const { rotations, root, places, lowest, soles } = await model.run("body", { motion: ["float32", motion, [frames, 25, 6]] });
    const rows = (numbers, wide) => Array.from({ length: frames }, (_, frame) => Array.from(numbers.subarray(wide * frame, wide * (frame + 1))));
    const place = (frame, joint) => places.subarray(3 * (frame * joints + joint), 3 * (frame * joints + joint) + 3);
    const height = floorOf({ place, lowest: Array.from(lowest), sole: rows(soles, 2) }, fps, floor);
    const lift = (metres, number) => (number % 3 === 2 ? metres - height : metres);
    return { ...motionOf(rotations, rows(root.map(lift), 3), joints), places: places.map(lift) };
  },

  /** Let the card show a motion, and hand out its files, under a name. */
  async show(motion, name) {
    for (const [kind, write] of Object.entries(KINDS)) {
      const { key, bytes } = model.templates[kind];
      held.set(key, write(kind === "glb" ? bytes : new Uint8Array(bytes), motion, model.told));
    }
    for (const link of document.querySelectorAll(".card a[data-of]")) link.download = link.title = `${name}.${link.textContent.trim()}`;
    const { dataset } = document.querySelector(".card");
    Object.assign(dataset, lookAt(yUp(motion, model.told.pelvis), model.look));
    await page.renew(CARD);
  },
};

/** Where the camera looks, and from where, as the viewer reads it: it glides with the root, in front of the first frame. */
function lookAt({ turns, places }, { height, from }) {
  const half = 15; // frames to either side
  const path = places.map((_, frame) => {
    const near = places.slice(Math.max(0, frame - half), frame + half + 1);
    const mean = (axis) => near.reduce((sum, place) => sum + place[axis], 0) / near.length;
    return [mean(0), height, mean(2)];
  });
  const front = new Vector3(0, 0, 1).applyQuaternion(new Quaternion(...turns[0][0].toArray()));
  const far = Math.hypot(from[0], from[2]);
  const flat = Math.hypot(front.x, front.z) || 1;
  return { path: JSON.stringify(path), from: JSON.stringify([(far * front.x) / flat, from[1], (far * front.z) / flat]) };
}

function requireText(text, longest) {
  if (!/\S/u.test(text)) throw new Refusal("An empty text: write what the person does.");
  if (text.length > longest) throw new Refusal(`A text of ${text.length.toLocaleString("en")} characters, expected at most ${longest.toLocaleString("en")}: say it shorter.`);
}

/** Letters that the encoder was not made for, or "". */
function foreign(text) {
  return [...text].find((letter) => /\p{L}/u.test(letter) && !/\p{Script=Latin}/u.test(letter)) ?? "";
}

/** z of what is asked for in the form, and what to call it. */
const ASK = {
  async text({ text, seed }) {
    return [await model.z(text, seed), seed === "" ? text : `${text} (seed ${seed})`, [text]];
  },
  async edit({ base, from, to, scale }) {
    const [here, away, goal] = [await model.z(base), await model.z(from), await model.z(to)];
    return [here.map((part, axis) => part + scale * (goal[axis] - away[axis])), `${base} + ${scale} (${to} - ${from})`, [base, from, to]];
  },
  async between({ start, end, share }) {
    const [a, b] = [await model.z(start), await model.z(end)];
    return [a.map((part, axis) => part + (b[axis] - part) * share), `${start} to ${end}: ${Math.round(100 * share)} %`, [start, end]];
  },
};

const asked = { wanted: false, busy: false };

/** Make what the form asks for; while one is made, only the last wish waits. */
export async function ask() {
  asked.wanted = true;
  if (asked.busy) return;
  asked.busy = true;
  const form = find("ask");
  while (asked.wanted) {
    asked.wanted = false;
    try {
      const begun = performance.now();
      const words = Object.fromEntries(new FormData(form));
      const [z, title, texts] = await ASK[words.kind]({ ...words, scale: Number(words.scale), share: Number(words.share) });
      const motion = await model.decode(z);
      const took = performance.now() - begun;
      await model.show(motion, title.toLowerCase().replace(/[\W_]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "motion");
      document.querySelector(".card .title").textContent = title;
      const strange = texts.map(foreign).find(Boolean);
      tell(strange ? `The encoder reads English in Latin letters; letters such as ${strange} say nothing to it: expect any motion.` : `Made in ${took.toFixed(0)} ms.`, Boolean(strange));
      Object.assign(model, { last: { title, took, places: motion.places } });
    } catch (error) {
      if (!(error instanceof Refusal)) console.error(error);
      tell(error instanceof Refusal ? error.message : `The model failed (${error.message}): reload the page, or make it again with mclip page.`, true);
    }
  }
  asked.busy = false;
}

function tell(words, wrong = false) {
  Object.assign(find("told"), { textContent: words, className: wrong ? "wrong" : "soft" });
}

/** The page, its form, and the model behind it. */
export async function start() {
  page.start();
  const form = find("ask");
  const choose = () => {
    const { kind } = Object.fromEntries(new FormData(form));
    for (const part of form.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== kind;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  form.addEventListener("input", ({ target }) => {
    if (target.name === "kind") choose();
    if (target.type === "range") ask();
  });
  choose();
  tell("The model is being unpacked.");
  try {
    const begun = performance.now();
    await model.load();
    tell(`Ready after ${((performance.now() - begun) / 1000).toFixed(1)} s: type what a person does.`);
    find("make").disabled = false;
    model.ready = true;
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    tell(error instanceof Refusal ? error.message : `The model could not be unpacked (${error.message}): make the page again with mclip page.`, true);
  }
}
