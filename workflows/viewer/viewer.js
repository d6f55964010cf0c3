// The script of mclip's pages: plays the GLBs that lie in the page, without asking anything of a network.
//
// A page holds a hundred motions and a browser few WebGL contexts, so one context draws whatever card is in sight, and
// the picture is copied to the card's own canvas. Nothing is drawn while nothing moves.
import {
  AnimationMixer, Color, DirectionalLight, Fog, GridHelper, Group, HemisphereLight, MathUtils, Mesh, PCFShadowMap,
  PerspectiveCamera, PlaneGeometry, Scene, ShadowMaterial, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const FIELD_OF_VIEW = 30; // degrees over the shorter side, as the camera of mclip's pictures
const SOURCE = "#9a9a9f"; // of a body that stands beside what was made of it
const SHADOW = { dark: 0.45, light: 0.18 };
const { degToRad: radians, radToDeg: degrees } = MathUtils;
const loader = new GLTFLoader();
const find = (selector, within = document) => within.querySelector(selector);

export const held = new Map(); // files by key that a script made, in place of those that lie in the page

/** The bytes of a file that lies in the page: gzip in base64. */
export async function bytesOf(name) {
  if (held.has(name)) return held.get(name);
  const letters = atob(find(`script[data-file="${CSS.escape(name)}"]`).textContent);
  const packed = new Uint8Array(letters.length); // a loop: a callback a letter takes seconds for a model
  for (let place = 0; place < letters.length; place++) packed[place] = letters.charCodeAt(place);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** What a card shows: one body or two, and the path along which the camera glides. */
class Motion {
  constructor(card, scenes) {
    this.seconds = Number(card.dataset.seconds);
    this.path = JSON.parse(card.dataset.path);
    this.from = new Vector3(...JSON.parse(card.dataset.from));
    this.group = new Group();
    this.bodies = scenes.map(({ scene, animations }, number) => {
      scene.traverse((part) => {
        if (!part.isMesh) return;
        part.castShadow = true;
        part.frustumCulled = false; // its bounds are those of the rest pose
        if (scenes.length > 1 && number === 0) part.material.color = new Color(SOURCE);
      });
      this.group.add(scene);
      const mixer = new AnimationMixer(scene);
      const action = mixer.clipAction(animations[0]).play();
      return { mixer, action };
    });
  }

  static async load(card) {
    const names = card.dataset.play.split(" ");
    const scenes = await Promise.all(names.map(async (name) => loader.parseAsync(await bytesOf(name), "")));
    return new Motion(card, scenes);
  }

  /** Pose the bodies as they are after some seconds; it begins anew when it is over. */
  pose(seconds) {
    const time = seconds <= this.seconds ? seconds : seconds % this.seconds;
    for (const { mixer, action } of this.bodies) {
      action.time = time;
      mixer.update(0);
    }
    const place = Math.min(time / this.seconds, 1) * (this.path.length - 1) || 0;
    const [before, after] = [Math.floor(place), Math.ceil(place)].map((frame) => this.path[frame]);
    const share = place - Math.floor(place);
    this.group.position.set(...before.map((here, axis) => -(here + (after[axis] - here) * share)));
  }
}

/** A canvas and the camera that looks at its motion. */
class View {
  constructor(canvas, { free }) {
    this.canvas = canvas;
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.05, 60);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableZoom = this.controls.enablePan = free;
    this.controls.maxPolarAngle = 1.65;
    canvas.style.touchAction = free ? "none" : "pan-y"; // a finger that moves up or down scrolls the page
    this.controls.addEventListener("change", page.redraw);
  }

  look(motion) {
    this.motion = motion;
    this.camera.position.copy(motion.from);
    this.controls.target.set(0, 0, 0);
    this.controls.update();
  }
}

/** The one renderer, and what stands around every motion: light, a floor and the shadow on it. */
class Studio {
  constructor() {
    this.renderer = new WebGLRenderer({ antialias: true });
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = PCFShadowMap;
    this.scene = new Scene();
    this.scene.fog = new Fog("white", 7, 16);
    this.sky = new HemisphereLight("#ffffff", "#9c9489", 1.7);
    const sun = new DirectionalLight("#ffffff", 2.1);
    sun.position.set(1.5, 4, 2.5);
    sun.castShadow = true;
    sun.shadow.mapSize.set(512, 512);
    Object.assign(sun.shadow.camera, { left: -2.4, right: 2.4, top: 2.4, bottom: -2.4, near: 0.5, far: 10 });
    sun.shadow.radius = 4;
    this.floor = new Group();
    const ground = new Mesh(new PlaneGeometry(40, 40).rotateX(-Math.PI / 2), new ShadowMaterial());
    ground.receiveShadow = true;
    this.shade = ground.material;
    this.grid = new GridHelper(40, 40, "#808080", "#808080");
    this.grid.material.transparent = true;
    this.grid.material.opacity = 0.5;
    this.floor.add(ground, this.grid);
    this.scene.add(this.sky, sun, this.floor);
  }

  /** Draw a view and copy the picture to its canvas. */
  draw({ canvas, camera, motion }, seconds) {
    const scale = Math.min(devicePixelRatio, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * scale));
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.fit(width, height);
    camera.aspect = width / height;
    camera.fov = camera.aspect < 1 ? degrees(2 * Math.atan(Math.tan(radians(FIELD_OF_VIEW / 2)) / camera.aspect)) : FIELD_OF_VIEW;
    camera.updateProjectionMatrix();
    const back = new Color(getComputedStyle(canvas.parentElement).backgroundColor);
    this.renderer.setClearColor(back);
    this.scene.fog.color = back;
    this.shade.opacity = back.getHSL({}).l < 0.5 ? SHADOW.dark : SHADOW.light;
    motion.pose(seconds);
    this.floor.position.copy(motion.group.position);
    this.scene.add(motion.group);
    this.renderer.setViewport(0, 0, width, height);
    this.renderer.setScissor(0, 0, width, height);
    this.renderer.setScissorTest(true);
    this.renderer.render(this.scene, camera);
    this.scene.remove(motion.group);
    const drawn = this.renderer.domElement;
    canvas.getContext("2d").drawImage(drawn, 0, drawn.height - height, width, height, 0, 0, width, height);
  }

  /** Grow the hidden canvas to what a picture needs; it never shrinks, for that would cost an allocation a card. */
  fit(width, height) {
    const { width: wide, height: high } = this.renderer.domElement;
    if (wide < width || high < height) this.renderer.setSize(Math.max(wide, width), Math.max(high, height), false);
  }
}

/** The page: its clock, its cards, and what hands do. */
export const page = {
  seconds: 0,
  playing: !matchMedia("(prefers-reduced-motion: reduce)").matches,
  speed: 1,
  stale: true,
  cards: [],
  redraw: () => (page.stale = true),

  start() {
    page.bar = find("#bar");
    page.dialog = find("#stage");
    page.cards = [...document.querySelectorAll(".card")].map((card) => ({ card, canvas: find("canvas", card) }));
    page.length = Math.max(...page.cards.map(({ card }) => Number(card.dataset.seconds)));
    page.frame = Math.min(...page.cards.map(({ card }) => 1 / Number(card.dataset.fps)));
    page.scrub = Object.assign(find("#scrub"), { max: page.length, step: "any" });
    page.listen();
    try {
      page.studio = new Studio();
    } catch (error) {
      find("#no-webgl").hidden = false; // the still pictures stay
      console.warn(error);
      return;
    }
    page.watch();
    page.before = performance.now();
    requestAnimationFrame(page.tick);
  },

  /** Load what comes into sight, once; draw only what is in sight. */
  watch() {
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const entry = page.cards.find(({ canvas }) => canvas === target);
        entry.visible = isIntersecting;
        if (isIntersecting) page.load(entry);
      }
      page.redraw();
    }, { rootMargin: "100px" });
    for (const { canvas } of page.cards) seen.observe(canvas);
  },

  load(entry) {
    entry.loading ??= Motion.load(entry.card).then((motion) => {
      entry.view ??= new View(entry.canvas, { free: false });
      entry.view.look(motion);
      page.redraw();
      return motion;
    });
    return entry.loading;
  },

  /** Show what a card's files and path have become since it was loaded, from its first frame on. */
  async renew(number) {
    const entry = page.cards[number];
    entry.loading = undefined;
    const motion = await page.load(entry);
    if (page.dialog.open && page.shown === number) page.large.look(motion);
    page.seek(0);
  },

  tick(now) {
    const passed = Math.min((now - page.before) / 1000, 0.1); // a page that was hidden does not jump
    page.before = now;
    if (page.playing) page.seek((page.seconds + passed * page.speed) % page.length);
    if (page.stale) {
      page.stale = false;
      page.draw();
    }
    requestAnimationFrame(page.tick);
  },

  draw() {
    const views = page.dialog.open ? [page.large] : page.cards.filter(({ visible }) => visible).map(({ view }) => view);
    for (const view of views) {
      if (!view?.motion) continue;
      page.studio.draw(view, page.seconds);
      view.canvas.parentElement.classList.add("drawn");
    }
    page.scrub.value = page.seconds;
    find("#time").textContent = `${page.seconds.toFixed(2)} / ${page.length.toFixed(2)} s`;
  },

  seek(seconds) {
    page.seconds = Math.min(Math.max(seconds, 0), page.length);
    page.redraw();
  },

  play(playing = !page.playing) {
    page.playing = playing;
    Object.assign(find("#play"), { textContent: playing ? "❚❚" : "▶", ariaLabel: playing ? "Pause" : "Play" });
  },

  /** One frame on or back, standing still. */
  step(frames) {
    page.play(false);
    page.seek((Math.round(page.seconds / page.frame) + frames) * page.frame);
  },

  setSpeed(speed) {
    page.speed = Number(speed);
    find("#speed").value = speed;
  },

  faster(places) {
    const choices = [...find("#speed").options].map(({ value }) => value);
    const place = choices.indexOf(String(page.speed)) + places;
    if (place in choices) page.setSpeed(choices[place]);
  },

  turnLights() {
    const { style } = document.documentElement;
    const dark = style.colorScheme ? style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    style.colorScheme = dark ? "light" : "dark";
    page.redraw();
  },

  /** Show a card large, with its words and links; another one with a step to its side. */
  async open(number) {
    const entry = page.cards.at(number % page.cards.length);
    if (!entry) return;
    page.shown = page.cards.indexOf(entry);
    find("#words").replaceChildren(...[...find("figcaption", entry.card).cloneNode(true).childNodes]);
    page.large ??= page.studio && new View(find("canvas", page.dialog), { free: true });
    if (!page.dialog.open) {
      find("nav", page.dialog).before(page.bar); // a dialog leaves nothing outside to press
      page.dialog.showModal();
    }
    if (page.studio) page.large.look(await page.load(entry));
    page.redraw();
  },

  listen() {
    find("#speed").onchange = ({ target }) => page.setSpeed(target.value);
    find("#lights").onclick = page.turnLights;
    page.scrub.oninput = ({ target }) => {
      page.play(false);
      page.seek(Number(target.value));
    };
    find("#back").onclick = () => page.open(page.shown - 1);
    find("#on").onclick = () => page.open(page.shown + 1);
    find("#close").onclick = () => page.dialog.close();
    page.dialog.onclose = () => {
      find("#keys").before(page.bar);
      page.redraw();
    };
    find("#play").onclick = () => page.play();
    page.play(page.playing);
    page.cards.forEach((entry, number) => {
      find(".title", entry.card).onclick = () => page.open(number);
      opensOnClick(entry.canvas, () => page.open(number));
    });
    addEventListener("resize", page.redraw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", page.redraw);
    document.addEventListener("keydown", page.key);
    document.addEventListener("click", page.download);
  },

  key(event) {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || (key === " " && target.closest("button, a, select"))) return;
    const keys = {
      " ": () => page.play(), ArrowLeft: () => page.step(-1), ArrowRight: () => page.step(1), Home: () => page.seek(0),
      "[": () => page.faster(-1), "]": () => page.faster(1), d: page.turnLights,
      p: () => page.dialog.open && page.open(page.shown - 1), n: () => page.dialog.open && page.open(page.shown + 1),
    };
    const action = /^[1-9]$/.test(key) ? () => key <= page.cards.length && page.open(key - 1) : keys[key];
    if (!action || target.matches("select")) return;
    event.preventDefault();
    action();
  },

  /** Hand out a file that lies in the page. */
  async download(event) {
    const link = event.target.closest("a[data-of]");
    if (!link) return;
    event.preventDefault();
    const address = URL.createObjectURL(new Blob([await bytesOf(link.dataset.of)]));
    Object.assign(document.createElement("a"), { href: address, download: link.download }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  },
};

/** A press that does not wander is a click; one that does turns the body. */
function opensOnClick(canvas, action) {
  let start;
  canvas.addEventListener("pointerdown", ({ clientX, clientY }) => (start = [clientX, clientY]));
  canvas.addEventListener("click", ({ clientX, clientY }) => {
    if (start && Math.hypot(clientX - start[0], clientY - start[1]) < 5) action();
  });
}
