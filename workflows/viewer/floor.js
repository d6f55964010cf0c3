// Where the floor of a decoded motion is: `floor_of` of training/show/motion.py and `standing_feet` of
// training/measure/physics.py, number by number. The constants come with the page, from those modules.

/** The value that a share of some numbers lies below, between two of them where it has to be. */
function quantile(numbers, share) {
  const sorted = Float32Array.from(numbers).sort();
  const place = share * (sorted.length - 1);
  const [before, after] = [Math.floor(place), Math.ceil(place)];
  return sorted[before] + (sorted[after] - sorted[before]) * (place - before);
}

const frames = (count, give) => Array.from({ length: count }, (_, frame) => give(frame));

/** In which frames either foot stands: [left, right] a frame. `place(frame, joint)` is [x, y, z], metres, z up. */
function standing(place, sole, count, fps, { feet, ...told }) {
  const flat = ([ax, ay], [bx, by]) => Math.hypot(ax - bx, ay - by);
  const step = (frame, joint) => flat(place(frame, joint), place(frame - 1, joint));
  const lowest = frames(count, (frame) => {
    const heights = feet.map((joint) => place(frame, joint)[2]);
    return heights.indexOf(Math.min(...heights));
  });
  const stays = frames(count, (frame) => frame > 0 && lowest[frame] === lowest[frame - 1]);
  const speeds = frames(count, (frame) => stays[frame] && 1000 * fps * step(frame, feet[lowest[frame]])).filter((speed) => speed !== false);
  const planted = speeds.length ? quantile(speeds, 0.5) / 1000 : NaN;
  const most = Math.min(Math.max(told.ofPlanted * planted, told.slowest), told.fastest);
  const [ankles, toes] = [feet.slice(0, 2), feet.slice(2)];
  const found = frames(count, () => [false, false]);
  for (const foot of [0, 1]) {
    const [ankle, toe] = [ankles[foot], toes[foot]];
    const speed = frames(count, (frame) => {
      const onToes = place(frame, toe)[2] - place(frame, ankle)[2] < told.toeBelowAnkle;
      return frame && fps * step(frame, onToes ? toe : ankle);
    });
    const slower = speed.map((here, frame) => (frame ? Math.min(here, speed[Math.min(frame + 1, count - 1)]) : speed[Math.min(1, count - 1)]));
    const [begins, goesOn] = [0, 1].map((kind) =>
      frames(count, (frame) => Math.abs(sole[frame][foot]) < told.height[kind] && slower[frame] < told.speed[kind] * most));
    for (let start = 0; start < count; start++) {
      if (!goesOn[start]) continue;
      let stop = start;
      while (stop < count && goesOn[stop]) stop++;
      const first = begins.indexOf(true, start);
      if (first >= 0 && first < stop && stop - first >= told.atLeast * fps) for (let frame = first; frame < stop; frame++) found[frame][foot] = true;
      start = stop;
    }
  }
  return found;
}

/** The height of the floor, metres; `lowest` a frame, `sole` [left, right] a frame. */
export function floorOf({ place, lowest, sole }, fps, told) {
  const count = lowest.length;
  const onFeet = sole.map((both, frame) => both.map((height) => height - lowest[frame] < told.carries));
  const carried = lowest.filter((_, frame) => onFeet[frame].some(Boolean));
  if (carried.length) {
    const about = Float32Array.from(carried).sort()[Math.floor((carried.length - 1) / 2)]; // torch's median: the lower
    const stands = standing(place, sole.map((both) => both.map((height) => height - about)), count, fps, told);
    const carries = onFeet.map((both, frame) => both.map((on, foot) => on && stands[frame][foot]));
    if (carries.filter((both) => both.some(Boolean)).length / count > told.often) {
      return quantile(sole.flatMap((both, frame) => both.filter((_, foot) => carries[frame][foot])), told.rolls);
    }
  }
  return quantile(lowest, told.dips);
}
