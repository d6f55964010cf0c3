// The page that workflows/draw_characters.py opens: each character at some times of its first animation, in a row.
import * as THREE from "three";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";

const [WIDTH, HEIGHT] = [230, 260];

/** Draw rows of {name, glb (base64), times (seconds)} onto one canvas, and say in the title that it is done. */
export async function draw(rows) {
  const canvas = document.createElement("canvas");
  const columns = rows[0].times.length;
  Object.assign(canvas, { width: WIDTH * columns, height: HEIGHT * rows.length });
  document.body.append(canvas);
  const context = canvas.getContext("2d");
  const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
  renderer.setSize(WIDTH, HEIGHT);
  for (const [row, { name, glb, times }] of rows.entries()) {
    const bytes = Uint8Array.from(atob(glb), (letter) => letter.charCodeAt(0));
    const gltf = await new GLTFLoader().parseAsync(bytes.buffer, "");
    const mixer = new THREE.AnimationMixer(gltf.scene);
    mixer.clipAction(gltf.animations[0]).play();
    const scene = new THREE.Scene();
    scene.background = new THREE.Color(0xffffff);
    const light = new THREE.DirectionalLight(0xffffff, 2.5);
    light.position.set(2, 4, 3);
    scene.add(gltf.scene, light, new THREE.HemisphereLight(0xffffff, 0x888888, 1.5), new THREE.GridHelper(8, 16));
    for (const [column, time] of times.entries()) {
      mixer.setTime(time);
      gltf.scene.updateMatrixWorld(true);
      const at = new THREE.Vector3();
      gltf.scene.traverse((node) => node.isSkinnedMesh && node.skeleton.bones[0].getWorldPosition(at));
      const camera = new THREE.PerspectiveCamera(35, WIDTH / HEIGHT, 0.1, 50);
      camera.position.set(at.x + 1.6, 1.1, at.z + 3.2);
      camera.lookAt(at.x, 0.85, at.z);
      gltf.scene.traverse((node) => (node.frustumCulled = false));
      renderer.render(scene, camera);
      context.drawImage(renderer.domElement, WIDTH * column, HEIGHT * row);
    }
    context.fillText(name, 8, HEIGHT * row + 16);
  }
  document.title = "drawn";
}
