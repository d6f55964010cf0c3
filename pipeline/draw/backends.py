"""`render_bodies`: one function, four renderers of the same picture.

`cpu` (our rasteriser), `torch` (the same by tensors, on any device), `pytorch3d` (the reference; the default on CUDA)
and `pyrender` (OpenGL through EGL) share the camera, the light and the shading formula of `rasterise`. The first three
agree within 1/255 on every pixel; `pyrender` shades the vertices only and blends, so its pixels are near but not equal.
"""

# B batch, V vertices, F faces, S picture side in pixels

import os
import threading
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mclip.pipeline.draw import rasterise, tensors
from mclip.pipeline.draw.camera import Camera
from mclip.pipeline.draw.looks import CLAY, RGB, WHITE, check_size

BACKENDS = ("auto", "cpu", "torch", "pytorch3d", "pyrender")
LARGEST_BATCH = 4 * 2**30  # bytes of finished pictures in one call
PYTORCH3D_WHEEL = "easypytorch3d==0.7.9.post1"
PYTORCH3D_TORCH = "2.12"  # the one torch that wheel is built for


def render_bodies(
    vertices_BV3: Float[Tensor, "batch vertices 3"],
    faces_F3: Int[Tensor, "faces 3"],
    camera: Camera,
    *,
    size: int = 224,
    backend: str = "auto",
    colour: RGB | Float[Tensor, "vertices 3"] = CLAY,
    background: RGB = WHITE,
    antialias: int = 1,
    threads: int | None = None,
) -> UInt8[Tensor, "batch size size 3"]:
    """Pictures (B, size, size, 3), RGB 0..255, of bodies in the world, on the device of the vertices.

    `camera` holds a camera a body. `backend` is one of BACKENDS; "auto" is, for vertices on CUDA, pytorch3d where it is
    installed and else torch; elsewhere it is cpu. `colour` is RGB 0..1 of all vertices or of each, as is `background`.
    `antialias` k draws k times as large and averages k x k pixels. `threads` is for cpu: as many as the process may use
    by default.

    Raises ValueError for a size, colour, camera or vertices that cannot be drawn (naming the item of the batch),
    ImportError or RuntimeError for a backend that is not there, with the remedy.
    """
    check_size(size, antialias)
    for share in (colour, background):
        _check_colour(share)
    _check(vertices_BV3, faces_F3, camera, large=size * antialias)
    if not len(vertices_BV3):
        return vertices_BV3.new_empty((0, size, size, 3), dtype=torch.uint8)
    backend = choose_backend(backend, vertices_BV3.device)
    colours_V3 = torch.as_tensor(colour, dtype=torch.float32, device=vertices_BV3.device).expand(vertices_BV3.shape[1:])
    look: dict[str, Any] = {"size": size * antialias, "colours_V3": colours_V3, "background": background}
    if backend == "pytorch3d":
        pictures = _render_pytorch3d(vertices_BV3, faces_F3, camera, **look)
    elif backend == "torch":
        view_BV3 = camera.view(vertices_BV3.detach().float())
        pictures = tensors.draw(view_BV3, faces_F3, focal=camera.focal, **look)
    elif backend == "pyrender":
        pictures = _render_pyrender(vertices_BV3, faces_F3, camera, **look)
    else:
        pictures = rasterise.draw(
            vertices_BV3.cpu(),
            faces_F3.cpu(),
            R_B33=camera.R_B33.cpu(),
            T_B3=camera.T_B3.cpu(),
            focal=camera.focal,
            threads=threads,
            **look | {"colours_V3": colours_V3.cpu()},
        )
    return box_filter(pictures, antialias).to(vertices_BV3.device)


def choose_backend(backend: str, device: torch.device) -> str:
    """The renderer that "auto" stands for on this device, or the named one; an unknown name is a ValueError.

    ImportError or RuntimeError with the remedy where the named one is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend != "auto":
        {"pytorch3d": import_pytorch3d, "pyrender": import_pyrender}.get(backend, lambda: None)()
        return backend
    if device.type != "cuda":
        return "cpu"
    try:
        import_pytorch3d()
    except ImportError:
        return "torch"
    return "pytorch3d"


def box_filter(pictures_BSS3: UInt8[Tensor, "batch large large 3"], factor: int) -> UInt8[Tensor, "batch size size 3"]:
    """Means over factor x factor pixels, rounded."""
    if factor == 1:
        return pictures_BSS3
    large = pictures_BSS3.shape[1]
    small = large // factor
    blocks = pictures_BSS3.reshape(-1, small, factor, small, factor, 3)
    total = blocks.sum(dim=(2, 4), dtype=torch.int32)
    return torch.div(total + factor * factor // 2, factor * factor, rounding_mode="floor").to(torch.uint8)


def _check_colour(colour: RGB | Tensor) -> None:
    shares = torch.as_tensor(colour)
    if shares.shape[-1] != 3 or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"colour: found {colour}, expected three shares from 0 to 1")


def _check(vertices_BV3: Tensor, faces_F3: Tensor, camera: Camera, *, large: int) -> None:
    batch = len(vertices_BV3)
    if len(camera) != batch:
        raise ValueError(f"camera: found {len(camera)} cameras for {batch} bodies, expected one a body")
    most = LARGEST_BATCH // (3 * large**2)
    if batch > most:
        raise ValueError(
            f"batch: found {batch} bodies at {large} px, expected at most {most} in one call: render in smaller batches"
        )
    if batch and not len(faces_F3):
        raise ValueError("faces: found none, expected at least one")
    bounds = (
        faces_F3 if faces_F3.device.type != "cpu" else faces_F3.numpy()
    )  # numpy for the reason given in _check_finite
    low, high = (int(bounds.min()), int(bounds.max())) if len(faces_F3) else (0, -1)
    if low < 0 or high >= vertices_BV3.shape[1]:
        raise ValueError(f"faces: found vertices {low} to {high}, expected 0 to {vertices_BV3.shape[1] - 1}")
    _check_finite("vertices", vertices_BV3.flatten(1))
    _check_finite("camera", torch.cat((camera.R_B33.flatten(1), camera.T_B3), dim=1))


def _check_finite(what: str, values_BN: Tensor) -> None:
    # A sum is finite exactly if all its terms are (bodies are not 1e38 m large), and takes one fast pass; on a CPU
    # by numpy, which waits for no other thread of a busy machine.
    if values_BN.device.type == "cpu":
        with np.errstate(invalid="ignore"):
            sum_B = torch.from_numpy(np.asarray(values_BN.detach().numpy().sum(1)))
    else:
        sum_B = values_BN.detach().sum(1)
    bad_B = ~torch.isfinite(sum_B)
    if bad_B.any():
        item = int(bad_B.nonzero()[0])
        raise ValueError(
            f"{what}: found NaN or infinity in item {item} of the batch ({int(bad_B.sum())} of {len(bad_B)} items), "
            "expected finite metres: look for NaN in that frame's rotations"
        )


def _torch_mismatch(error: ImportError) -> ImportError:
    """What to tell about a PyTorch3D that is there but does not load."""
    return ImportError(
        f"backend pytorch3d: found torch {torch.__version__}, expected torch {PYTORCH3D_TORCH}.x, for which "
        f"PyTorch3D's wheel {PYTORCH3D_WHEEL} is built ({error}): pip install "
        f"'torch=={PYTORCH3D_TORCH}.*' 'mclip[pytorch3d]', or use backend cpu, which draws the same pictures"
    )


def import_pytorch3d() -> ModuleType:
    """pytorch3d.renderer; an ImportError with the remedy where it is missing or built for another torch."""
    try:
        import pytorch3d.renderer
        from pytorch3d import _C  # noqa: F401  the compiled part: loads last and fails first
    except ModuleNotFoundError as error:
        if error.name not in ("pytorch3d", "pytorch3d._C"):
            raise
        raise ImportError(
            f"backend pytorch3d: PyTorch3D is not installed; expected {PYTORCH3D_WHEEL} with torch {PYTORCH3D_TORCH}.x "
            "(Linux x86_64): pip install 'mclip[pytorch3d]', or use backend cpu, which draws the same pictures"
        ) from error
    except ImportError as error:
        raise _torch_mismatch(error) from error
    return pytorch3d.renderer  # type: ignore[no-any-return]


def _render_pytorch3d(
    vertices_BV3: Tensor, faces_F3: Tensor, camera: Camera, *, size: int, colours_V3: Tensor, background: RGB
) -> Tensor:
    """Pictures by PyTorch3D's rasteriser and its HardPhongShader, stock.

    Meshes come in view axes and its camera stands at the origin, so light and rounding are those of the cpu backend.
    """
    renderer = import_pytorch3d()
    from pytorch3d.structures import Meshes

    device = vertices_BV3.device
    view_BV3 = camera.view(vertices_BV3.detach().float())
    colours_BV3 = colours_V3.expand_as(view_BV3)
    faces_BF3 = faces_F3[None].expand(len(view_BV3), -1, -1)
    meshes = Meshes(view_BV3, faces_BF3, textures=renderer.TexturesVertex(colours_BV3))
    # No near plane: faces that reach behind the camera are left out, and cameras never stand that close.
    cameras = renderer.PerspectiveCameras(focal_length=camera.focal, device=device)
    # bin_size stays None: on CUDA that is the coarse-to-fine kernel; 0 would be the slow one.
    settings = renderer.RasterizationSettings(image_size=size)
    lights = renderer.DirectionalLights(
        ambient_color=[[rasterise.AMBIENT] * 3],
        diffuse_color=[[rasterise.DIFFUSE] * 3],
        specular_color=[[rasterise.SPECULAR] * 3],
        direction=[rasterise.light_direction()],
        device=device,
    )
    shader = renderer.HardPhongShader(
        device=device,
        cameras=cameras,
        lights=lights,
        materials=renderer.Materials(shininess=rasterise.SHININESS, device=device),
        blend_params=renderer.BlendParams(background_color=background),
    )
    with torch.no_grad():
        fragments = renderer.MeshRasterizer(cameras, settings)(meshes)
        rgb_BSS3: Tensor = shader(fragments, meshes)[..., :3]
    return (rgb_BSS3.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def import_pyrender() -> ModuleType:
    """pyrender on EGL; an ImportError or RuntimeError with the remedy where it is missing or finds no EGL."""
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # read once, by the first import of OpenGL
    try:
        import pyrender
    except ModuleNotFoundError as error:
        raise ImportError(
            f"backend pyrender: found no module {error.name}, expected pyrender: pip install 'mclip[pyrender]', or use "
            "backend cpu, which needs neither EGL nor a display"
        ) from error
    except (ImportError, AttributeError, OSError) as error:
        raise _no_egl(error) from error
    return pyrender  # type: ignore[no-any-return]


def _no_egl(error: Exception) -> RuntimeError:
    return RuntimeError(
        f"backend pyrender: found no working EGL ({type(error).__name__}: {error}) with PYOPENGL_PLATFORM="
        f"{os.environ.get('PYOPENGL_PLATFORM')}, expected libEGL and a driver: install them (Debian: apt install "
        "libegl1 libgl1-mesa-dri libgles2) or use backend cpu"
    )


def _render_pyrender(
    vertices_BV3: Tensor, faces_F3: Tensor, camera: Camera, *, size: int, colours_V3: Tensor, background: RGB
) -> Tensor:
    """Pictures by OpenGL: the shading formula at the vertices, blended over the faces by the GPU or Mesa."""
    pyrender = import_pyrender()
    view_BV3 = camera.view(vertices_BV3.detach().float()).cpu()
    window = _pyrender_window(pyrender, size)
    # No culling: the other backends draw the inside of a body with holes too.
    flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.SKIP_CULL_FACES
    pictures = []
    for view_V3 in view_BV3:
        colours = rasterise.vertex_colours(view_V3, faces_F3.cpu(), colours_V3=colours_V3.cpu())
        scene = _pyrender_scene(
            pyrender, view_V3, faces_F3.cpu(), focal=camera.focal, colours_V3=colours, around=background
        )
        pictures.append(window.render(scene, flags=flags)[0])
    return torch.from_numpy(np.stack(pictures))


_windows = threading.local()  # an OpenGL context belongs to one thread


def _pyrender_window(pyrender: ModuleType, size: int) -> Any:
    """This thread's offscreen window at `size`, opened once."""
    window = getattr(_windows, "window", None)
    if window is None:
        try:
            window = pyrender.OffscreenRenderer(size, size)
        except Exception as error:  # EGL's own error classes exist only where it loaded
            raise _no_egl(error) from error
        _without_multisampling(window._renderer)
        _windows.window = window
    window.viewport_width = window.viewport_height = size
    return window


def _without_multisampling(renderer: Any) -> None:
    """Let this renderer draw hard edges as the other backends do; pyrender turns multisampling on in each pass."""
    from OpenGL.GL import GL_MULTISAMPLE, glDisable

    original = renderer._get_camera_matrices  # called between turning it on and drawing

    def hard_edged(scene: Any) -> Any:
        glDisable(GL_MULTISAMPLE)
        return original(scene)

    renderer._get_camera_matrices = hard_edged


def _pyrender_scene(
    pyrender: ModuleType, view_V3: Tensor, faces_F3: Tensor, *, focal: float, colours_V3: Tensor, around: RGB
) -> Any:
    """A scene with one body, its vertices shaded, in front of a camera at the origin."""
    # OpenGL looks along -z with +x right: half a turn about the vertical.
    positions = (view_V3 * torch.tensor([-1.0, 1.0, -1.0])).numpy()
    indices = faces_F3.numpy().astype(np.int32)
    primitive = pyrender.Primitive(positions=positions, indices=indices, color_0=colours_V3.numpy())
    mesh = pyrender.Mesh([primitive])
    # pyrender 0.1.45 computes this with np.infty, which numpy 2 no longer has.
    mesh._bounds = primitive.bounds
    scene = pyrender.Scene(bg_color=around)
    scene.add(mesh)
    scene.add(pyrender.PerspectiveCamera(yfov=2 * float(np.arctan(1 / focal)), znear=0.05, zfar=100.0))
    return scene
