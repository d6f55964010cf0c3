// The files of a motion, made from those of the motion that came with the page: mclip's own writers made them, and only
// their numbers are replaced. All motions of a page have the same number of frames.
import { Euler, MathUtils, Matrix4, Quaternion, Vector3 } from "three";
import { unzipSync, zipSync } from "three/addons/libs/fflate.module.js";

const CENTIMETRES = 100;

/** Local rotations of a frame as quaternions, of nine numbers a joint, row by row. */
function quaternion(numbers, offset) {
  const [a, b, c, d, e, f, g, h, i] = numbers.subarray(offset, offset + 9);
  return new Quaternion().setFromRotationMatrix(new Matrix4().set(a, b, c, 0, d, e, f, 0, g, h, i, 0, 0, 0, 0, 1)).normalize();
}

/** A motion as its writers take it: `turns[frame][joint]` quaternions and `trans[frame]` metres, world z up. */
export function motionOf(rotations, trans, joints) {
  const turns = trans.map((_, frame) => Array.from({ length: joints }, (_, joint) => quaternion(rotations, 9 * (frame * joints + joint))));
  return { turns, trans };
}

const UP = new Quaternion().setFromAxisAngle(new Vector3(1, 0, 0), -Math.PI / 2); // z up to y up

/** The same in a world whose y is up; `pelvis` is where that joint is at rest. */
export function yUp({ turns, trans }, pelvis) {
  return {
    turns: turns.map(([root, ...others]) => [UP.clone().multiply(root), ...others]),
    places: trans.map(([x, y, z]) => [x + pelvis[0], z + pelvis[2], -(y + pelvis[1])]),
  };
}

/** AMASS's .npz: axis-angles in float64 at the joints that mclip fills, and the root's place. */
export function npz(template, { turns, trans }, { rows }) {
  const entries = unzipSync(template);
  const numbersOf = (name) => {
    const bytes = (entries[name] = entries[name].slice());
    const start = 10 + bytes[8] + 256 * bytes[9]; // the header of NumPy's format 1.0 says its length there
    return { view: new DataView(bytes.buffer, start), count: (bytes.length - start) / 8 };
  };
  const poses = numbersOf("poses.npy");
  const width = poses.count / trans.length;
  turns.forEach((joints, frame) => joints.forEach((turn, joint) => {
    const sign = turn.w < 0 ? -1 : 1;
    const vector = [turn.x, turn.y, turn.z].map((part) => sign * part);
    const length = Math.hypot(...vector);
    const angle = length > 1e-12 ? (2 * Math.atan2(length, sign * turn.w)) / length : 2;
    vector.forEach((part, axis) => poses.view.setFloat64(8 * (frame * width + 3 * rows[joint] + axis), angle * part, true));
  }));
  const places = numbersOf("trans.npy").view;
  trans.flat().forEach((metres, number) => places.setFloat64(8 * number, metres, true));
  return zipSync(entries, { level: 0 });
}

/** BVH: angles in degrees in the order that the template's channels have, without jumps of a whole turn. */
export function bvh(template, motion, { order, pelvis }) {
  const text = new TextDecoder().decode(template);
  const head = text.slice(0, text.indexOf("\n", text.indexOf("Frame Time:")) + 1);
  const { turns, places } = yUp(motion, pelvis);
  const before = order.map(() => [0, 0, 0]);
  const lines = turns.map((joints, frame) => {
    const angles = order.map((joint, column) => {
      const { x, y, z } = new Euler().setFromQuaternion(joints[joint], "ZYX");
      before[column] = [z, y, x].map((angle, axis) => (frame ? angle - 2 * Math.PI * Math.round((angle - before[column][axis]) / (2 * Math.PI)) : angle));
      return before[column].map((angle) => MathUtils.radToDeg(angle));
    });
    return [...places[frame].map((metres) => CENTIMETRES * metres), ...angles.flat()].map((number) => number.toFixed(6)).join(" ");
  });
  return new TextEncoder().encode(`${head}${lines.join("\n")}\n`);
}

/** Binary glTF: the numbers of its one animation. */
export function glb(template, motion, { pelvis }) {
  const bytes = template.slice(0);
  const view = new DataView(bytes);
  const length = view.getUint32(12, true);
  const { animations, accessors, bufferViews } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 20, length)));
  const { turns, places } = yUp(motion, pelvis);
  for (const { sampler, target } of animations[0].channels) {
    const start = 28 + length + (bufferViews[accessors[animations[0].samplers[sampler].output].bufferView].byteOffset ?? 0);
    if (target.path === "translation") {
      places.flat().forEach((metres, number) => view.setFloat32(start + 4 * number, metres, true));
      continue;
    }
    let before;
    turns.forEach((joints, frame) => {
      let turn = joints[target.node].toArray(); // x, y, z, w
      if (before && turn.reduce((sum, part, place) => sum + part * before[place], 0) < 0) turn = turn.map((part) => -part);
      turn.forEach((part, place) => view.setFloat32(start + 4 * (4 * frame + place), part, true));
      before = turn;
    });
  }
  return bytes;
}
