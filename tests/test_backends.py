"""One picture, whichever renderer: golden pictures, parity, and bodies that are hard to see."""

import builtins
import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mclip.pipeline.draw import backends, rasterise
from mclip.pipeline.draw.backends import box_filter, choose_backend, render_bodies
from mclip.pipeline.draw.camera import Camera, front_camera, orbit
from mclip.pipeline.draw.ground import add_ground
from mclip.pipeline.draw.looks import CLAY
from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix

HERE = Path(__file__).parent
GOLDEN = runpy.run_path(str(HERE / "golden" / "regenerate.py"))
MOTIONS = ASSETS / "motions"


def posed(name: str = "low") -> tuple[torch.Tensor, torch.Tensor, Camera]:
    """Vertices, faces and front cameras of all golden scenes."""
    body, rotmat = load_body(name), GOLDEN["poses"]()
    vertices = body.pose(rotmat)
    return vertices, body.faces_F3, front_camera(rotmat[:, 0], vertices, yaw_offset=GOLDEN["yaws"]())


def foreground(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures < 255).any(-1)


def save_failure(name: str, found: np.ndarray, expected: np.ndarray) -> Path:
    """Found, expected and their difference side by side, for a human."""
    folder = HERE / "failures"
    folder.mkdir(exist_ok=True)
    difference = 255 - np.abs(found.astype(int) - expected).astype(np.uint8)
    path = folder / f"{name}.png"
    Image.fromarray(np.concatenate((found, expected, difference), axis=1)).save(path)
    return path


@pytest.fixture(scope="module")
def golden_pictures() -> dict[str, np.ndarray]:
    return dict(zip(GOLDEN["SCENES"], GOLDEN["draw"](load_body()).numpy(), strict=True))


@pytest.mark.parametrize("name", GOLDEN["SCENES"])
def test_picture_is_the_golden_one(golden_pictures, name):
    # Posing goes through torch's small matrix products, whose rounding depends on the machine (1e-7 m): that
    # moves single pixels at edges. 0.2 % of 128 x 128 are 32 pixels; a wrong sign changes 300 or more.
    expected = np.array(Image.open(HERE / "golden" / f"{name}.png"))
    found = golden_pictures[name]
    differing = (np.abs(found.astype(int) - expected).max(-1) > 2).sum()
    if differing > 32:
        path = save_failure(name, found, expected)
        pytest.fail(f"{differing} pixels differ by more than 2: see {path}")


def test_golden_check_sees_a_mirrored_picture(golden_pictures):
    for name in ("stride", "stride_from_its_left", "lying_on_the_back", "upside_down"):
        mirrored = golden_pictures[name][:, ::-1].astype(int)
        assert (np.abs(mirrored - golden_pictures[name]).max(-1) > 2).sum() > 300


@pytest.mark.pytorch3d
def test_cpu_pictures_equal_stock_pytorch3d():
    pytest.importorskip("pytorch3d")
    vertices, faces, camera = posed()
    ours = render_bodies(vertices, faces, camera, size=112, backend="cpu", colour=(0.9, 0.5, 0.3))
    theirs = render_bodies(vertices, faces, camera, size=112, backend="pytorch3d", colour=(0.9, 0.5, 0.3))
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3
    assert foreground(ours).float().mean() > 0.05


def on_ground() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Camera]:
    """The golden scenes on a floor: vertices, faces, colours of vertices, cameras."""
    vertices, faces, camera = posed()
    low, high = torch.aminmax(vertices, dim=1)
    centre = torch.cat(((low + high)[:, :2] / 2, low[:, 2:]), dim=1)
    clay = torch.tensor(CLAY).expand(vertices.shape[1:])
    return *add_ground(vertices, faces, clay, centre_B3=centre, half_B=torch.full((len(vertices),), 2.0)), camera


@pytest.mark.pytorch3d
def test_floor_and_background_of_cpu_equal_those_of_stock_pytorch3d():
    pytest.importorskip("pytorch3d")
    vertices, faces, colours, camera = on_ground()
    look = {"size": 112, "colour": colours, "background": (0.2, 0.4, 0.9)}
    ours = render_bodies(vertices, faces, camera, backend="cpu", **look)
    theirs = render_bodies(vertices, faces, camera, backend="pytorch3d", **look)
    difference = (ours.int() - theirs.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3
    assert ours[0, 0, 0].tolist() == [51, 102, 230]
    bare = render_bodies(*posed(), size=112, backend="cpu", background=(0.2, 0.4, 0.9))
    assert ((ours != bare).any(-1)).float().mean() > 0.15  # the floor is seen


@pytest.mark.pytorch3d
def test_colours_of_vertices_are_blended_as_by_stock_pytorch3d():
    pytest.importorskip("pytorch3d")
    vertices, faces, camera = posed()
    colours = torch.rand(vertices.shape[1], 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        render_bodies(vertices[:3], faces, camera[:3], size=96, backend=backend, colour=colours)
        for backend in ("cpu", "pytorch3d")
    )
    assert (ours.int() - theirs.int()).abs().max() <= 1
    plain = render_bodies(vertices[:3], faces, camera[:3], size=96)
    assert (ours.int() - plain.int()).abs().max() > 100


@pytest.mark.pyrender
def test_pyrender_shows_nearly_the_same_floor():
    pytest.importorskip("pyrender")
    vertices, faces, colours, camera = on_ground()
    look = {"colour": colours, "background": (0.2, 0.4, 0.9)}
    ours = render_bodies(vertices, faces, camera, backend="cpu", **look).int()
    theirs = render_bodies(vertices, faces, camera, backend="pyrender", **look).int()
    assert ((ours - theirs).abs().amax(-1) > 24).float().mean() < 0.02
    assert (ours - theirs).abs().float().mean() < 2


@pytest.mark.pytorch3d
def test_view_axes_give_the_faces_of_a_stock_world_camera():
    renderer, structures = pytest.importorskip("pytorch3d.renderer"), pytest.importorskip("pytorch3d.structures")
    vertices, faces, camera = posed()
    vertices, camera = vertices[:3], camera[:3]
    stock = renderer.PerspectiveCameras(focal_length=camera.focal, R=camera.R_B33, T=camera.T_B3)
    rasteriser = renderer.MeshRasterizer(stock, renderer.RasterizationSettings(image_size=64))
    packed = rasteriser(structures.Meshes(vertices, faces[None].expand(3, -1, -1))).pix_to_face[..., 0]
    theirs = torch.where(packed >= 0, packed - torch.arange(3)[:, None, None] * len(faces), packed)
    ours = rasterise.rasterise(camera.view(vertices), faces, focal=camera.focal, size=64).pix_to_face
    # Their matrix product rounds differently from our sum: a pixel exactly on an edge may go either way.
    assert (ours != theirs).sum() <= 2


@pytest.mark.pyrender
def test_pyrender_shows_the_same_silhouette_and_nearly_the_same_shades():
    pytest.importorskip("pyrender")
    vertices, faces, camera = posed()
    ours = render_bodies(vertices, faces, camera, backend="cpu")
    theirs = render_bodies(vertices, faces, camera, backend="pyrender")
    mine, other = foreground(ours), foreground(theirs)
    overlap = (mine & other).sum((1, 2)) / (mine | other).sum((1, 2))
    assert overlap.min() > 0.99
    difference = (ours.float() - theirs.float()).abs()[mine & other]
    assert difference.mean() < 5


@pytest.mark.pyrender
def test_pyrender_takes_another_size_in_the_same_process():
    pytest.importorskip("pyrender")
    vertices, faces, camera = posed()
    for size in (64, 160, 64):
        theirs = foreground(render_bodies(vertices[:1], faces, camera[:1], size=size, backend="pyrender"))
        ours = foreground(render_bodies(vertices[:1], faces, camera[:1], size=size, backend="cpu"))
        assert theirs.shape == (1, size, size)
        assert (theirs & ours).sum() / (theirs | ours).sum() > 0.99


@pytest.mark.cuda
@pytest.mark.pytorch3d
def test_cuda_pictures_equal_those_of_the_cpu():
    pytest.importorskip("pytorch3d")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    vertices, faces, camera = posed("default")
    on_cuda = Camera(camera.R_B33.cuda(), camera.T_B3.cuda(), focal=camera.focal)
    theirs = render_bodies(vertices.cuda(), faces.cuda(), on_cuda).cpu()
    ours = render_bodies(vertices, faces, camera)
    differing = ((ours.int() - theirs.int()).abs() > 1).any(-1).float().mean()
    assert differing < 1e-3  # CUDA contracts multiply and add: pixels on edges may differ


@pytest.mark.parametrize("backend", ["cpu", pytest.param("pytorch3d", marks=pytest.mark.pytorch3d)])
def test_picture_in_a_batch_equals_that_picture_alone(backend):
    if backend == "pytorch3d":
        pytest.importorskip("pytorch3d")
    vertices, faces, camera = posed()
    together = render_bodies(vertices[:4], faces, camera[:4], size=48, backend=backend)
    for item in range(4):
        one = slice(item, item + 1)
        assert torch.equal(
            render_bodies(vertices[one], faces, camera[one], size=48, backend=backend)[0], together[item]
        )


def test_number_of_threads_does_not_change_the_pictures():
    vertices, faces, camera = posed()
    one, many = (render_bodies(vertices, faces, camera, size=64, threads=threads) for threads in (1, 5))
    assert torch.equal(one, many)


def test_pictures_drawn_from_several_threads_at_once_are_the_same():
    from concurrent.futures import ThreadPoolExecutor

    vertices, faces, camera = posed()
    expected = render_bodies(vertices, faces, camera, size=64)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: render_bodies(vertices, faces, camera, size=64), range(8)))
    assert all(torch.equal(picture, expected) for picture in drawn)


def test_far_translation_gives_the_same_picture():
    body, rotmat = load_body("low"), GOLDEN["poses"]()
    pictures = []
    for trans in ((0.0, 0, 0), (1000.0, -500.0, 20.0)):
        vertices = body.pose(rotmat, trans_B3=torch.tensor(trans).expand(len(rotmat), 3))
        pictures.append(render_bodies(vertices, body.faces_F3, front_camera(rotmat[:, 0], vertices)))
    # At 1 km float32 keeps 0.06 mm, a hundredth of a pixel: edges may move by one pixel here and there.
    differing = ((pictures[0].int() - pictures[1].int()).abs() > 8).any(-1).float().mean((1, 2))
    assert differing.max() < 0.003


def test_facing_light_and_far_sides_are_shaded_by_the_formula():
    # A square that faces the camera; n.l is the light's forward part. No edge runs through the middle: a pixel exactly
    # on one belongs to no face, here as in PyTorch3D.
    square = torch.tensor([[[-1.0, -1, 3], [1, -1, 3], [1, 1.5, 3], [-1, 1, 3]]])
    camera = Camera(torch.eye(3)[None], torch.zeros(1, 3))
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    normal = torch.linalg.cross(square[0, 2] - square[0, 0], square[0, 1] - square[0, 0])
    assert normal[2] < 0  # towards the camera
    middle = render_bodies(square, faces, camera, size=33, colour=(0.6, 0.5, 0.4))[0, 16, 16]
    cosine = -rasterise.light_direction()[2]
    shine = rasterise.SPECULAR * max(2 * cosine**2 - 1, 0) ** rasterise.SHININESS
    share = (
        torch.tensor([0.6, 0.5, 0.4], dtype=torch.float64) * (rasterise.AMBIENT + rasterise.DIFFUSE * cosine) + shine
    )
    # The middle of the picture sees the reflection: r.v is cos of twice the light's angle.
    torch.testing.assert_close(middle.double(), 255 * share, atol=1.0, rtol=0)
    behind = render_bodies(square, faces.flip(1), camera, size=33, colour=(0.6, 0.5, 0.4))[0, 16, 16]
    ambient = 255 * rasterise.AMBIENT * torch.tensor([0.6, 0.5, 0.4], dtype=torch.float64)
    torch.testing.assert_close(behind.double(), ambient, atol=1.0, rtol=0)


def test_antialiasing_is_the_mean_of_a_larger_picture():
    vertices, faces, camera = posed()
    large = render_bodies(vertices, faces, camera, size=192).double()
    mean = large.view(len(large), 64, 3, 64, 3, 3).mean((2, 4))
    smooth = render_bodies(vertices, faces, camera, size=64, antialias=3)
    torch.testing.assert_close(smooth.double(), mean, atol=0.51, rtol=0)
    assert not torch.equal(smooth, render_bodies(vertices, faces, camera, size=64))


def test_box_filter_rounds_to_the_nearest_level():
    blocks = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)
    assert box_filter(blocks[None, :, :, None].expand(1, 2, 2, 3), 2).flatten().tolist() == [1, 1, 1]
    blocks = torch.tensor([[0, 0], [1, 0]], dtype=torch.uint8)
    assert box_filter(blocks[None, :, :, None].expand(1, 2, 2, 3), 2).flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "axis_angle",
    [
        (0, 0, 0),
        (math.pi / 2, 0, 0),
        (-math.pi / 2, 0, 0),
        (math.pi, 0, 0),
        (0, math.pi, 0),
        (0, math.pi / 2, 0),
        (0, -math.pi / 4, 1.0),
    ],
)
@pytest.mark.parametrize("yaw", orbit(3))
def test_body_in_any_attitude_is_whole_in_the_picture(axis_angle, yaw):
    body, rotmat = load_body("low"), GOLDEN["poses"]()
    rotmat[:, 0] = axis_angle_to_matrix(torch.tensor(axis_angle, dtype=torch.float32)) @ rotmat[:1, 0]
    vertices = body.pose(rotmat)
    camera = front_camera(rotmat[:, 0], vertices, yaw_offset=yaw)
    assert_whole(render_bodies(vertices, body.faces_F3, camera, size=112))


def assert_whole(pictures: torch.Tensor) -> None:
    seen = foreground(pictures)
    share = seen.float().mean((1, 2))
    assert share.min() > 0.02
    assert share.max() < 0.60
    rim = torch.ones(pictures.shape[1:3], dtype=torch.bool)
    rim[2:-2, 2:-2] = False
    assert not (seen & rim).any()


def test_whole_embedded_set_shows_a_whole_body_in_every_picture():
    files = sorted((MOTIONS / "EMBEDDED").glob("*/*.npz"))
    assert len(files) >= 15
    body = load_body("low")
    joints = [*range(22), 22, 37]
    for path in files:
        with np.load(path, allow_pickle=False) as motion:
            poses = torch.from_numpy(motion["poses"][::10]).float().unflatten(1, (52, 3))[:, joints]
            trans = torch.from_numpy(motion["trans"][::10]).float()
        rotmat = axis_angle_to_matrix(poses)
        vertices = body.pose(rotmat, trans_B3=trans)
        camera = front_camera(rotmat[:, 0], vertices, yaw_offset=torch.arange(len(rotmat)) * 1.3)
        assert_whole(render_bodies(vertices, body.faces_F3, camera, size=96))


def test_body_partly_behind_the_camera_is_drawn_as_far_as_it_is_in_front():
    vertices, faces, camera = posed()
    near = Camera(camera.R_B33, camera.T_B3 - camera.T_B3.new_tensor([0, 0, 4.25]), focal=camera.focal)
    seen = foreground(render_bodies(vertices, faces, near, size=64))
    depth = near.view(vertices)[..., 2]
    assert ((depth < 0).any(1) & (depth > 0).any(1)).all()
    for item in range(len(vertices)):
        one = slice(item, item + 1)
        in_front = faces[(depth[item][faces] > 0).all(1)]
        assert torch.equal(seen[one], foreground(render_bodies(vertices[one], in_front, near[one], size=64)))
    assert (seen.float().mean((1, 2)) > 0.05).sum() >= 4


@pytest.mark.parametrize(("left", "up"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.2), (0.0, -1.2)])
def test_body_that_leaves_the_picture_is_the_body_of_a_wider_one(left, up):
    vertices, faces, camera = posed()
    aside = Camera(camera.R_B33, camera.T_B3 + torch.tensor([left, up, 0]), focal=camera.focal)
    near = foreground(render_bodies(vertices, faces, aside, size=64))
    # Half the focal length and twice the pixels: the middle of the picture is the same.
    wider = Camera(camera.R_B33, aside.T_B3, focal=camera.focal / 2)
    whole = foreground(render_bodies(vertices, faces, wider, size=128))
    assert (near != whole[:, 32:96, 32:96]).float().mean() < 2e-3
    assert (near.sum((1, 2)) < 0.95 * whole.sum((1, 2))).any()
    edge = {(1.0, 0.0): near[:, :, 0], (-1.0, 0.0): near[:, :, -1], (0.0, 1.2): near[:, 0], (0.0, -1.2): near[:, -1]}
    assert edge[left, up].any()


def test_body_beside_the_picture_leaves_it_white():
    vertices, faces, camera = posed()
    away = Camera(camera.R_B33, camera.T_B3 + torch.tensor([5.0, 0, 0]), focal=camera.focal)
    assert (render_bodies(vertices, faces, away, size=64) == 255).all()


@pytest.mark.parametrize("betas", [(5, 0), (-2.5, 0), (0, 5), (0, -4), (5, 5), (-2, -3), (5, -5)])
def test_bodies_of_extreme_shape_are_whole_in_the_picture(betas):
    low = load_body("low")
    wide, tall = torch.tensor([0.2, 0, 0.2]), torch.tensor([0, 0.1, 0])
    regressor = torch.zeros(24, len(low.v_template_V3))
    regressor[torch.arange(24), torch.cdist(low.joints_J3, low.v_template_V3).argmin(1)] = 1
    dirs = torch.stack((low.v_template_V3 * wide, low.v_template_V3 * tall), dim=-1)
    body = replace(low, shapedirs_V3S=dirs, J_regressor_JV=regressor).shaped(torch.tensor(betas, dtype=torch.float32))
    rotmat = GOLDEN["poses"]()
    vertices = body.pose(rotmat)
    assert_whole(render_bodies(vertices, body.faces_F3, front_camera(rotmat[:, 0], vertices), size=112))


def test_body_behind_the_camera_leaves_the_picture_white():
    vertices, faces, camera = posed()
    behind = Camera(camera.R_B33, camera.T_B3 - camera.T_B3.new_tensor([0, 0, 20.0]), focal=camera.focal)
    assert (render_bodies(vertices, faces, behind, size=32) == 255).all()


def test_degenerate_faces_do_not_change_the_picture():
    vertices, faces, camera = posed()
    odd = torch.tensor([[0, 0, 0], [5, 5, 9], [7, 8, 7]])
    expected = render_bodies(vertices, faces, camera, size=64)
    assert torch.equal(render_bodies(vertices, torch.cat((odd, faces)), camera, size=64), expected)


def test_vertices_that_are_not_finite_are_refused_by_their_item():
    vertices, faces, camera = posed()
    for bad in (math.nan, math.inf):
        broken = vertices.clone()
        broken[3, 17, 1] = bad
        with pytest.raises(
            ValueError, match=r"vertices: found NaN or infinity in item 3 of the batch \(1 of 7 items\)"
        ):
            render_bodies(broken, faces, camera)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "picture size: found 0 px, expected 16 to 4096"),
        ({"size": 15}, "found 15 px"),
        ({"size": 100_000}, "found 100000 px"),
        ({"antialias": 0}, "antialias: found 0 at 224 px, expected 1 to 36"),
        ({"size": 4096, "antialias": 3}, "antialias: found 3 at 4096 px, expected 1 to 2"),
        ({"background": (0.5, 0.5, -0.1)}, r"colour: found \(0.5, 0.5, -0.1\), expected three"),
        ({"colour": (0.5, 0.5, 1.5)}, r"colour: found \(0.5, 0.5, 1.5\)"),
        ({"backend": "blender"}, "backend: found 'blender', expected one of auto, cpu, torch, pytorch3d, pyrender"),
    ],
)
def test_options_out_of_range_are_refused_with_the_range(options, message):
    vertices, faces, camera = posed()
    with pytest.raises(ValueError, match=message):
        render_bodies(vertices, faces, camera, **options)


def test_wrong_number_of_cameras_is_refused():
    vertices, faces, camera = posed()
    with pytest.raises(ValueError, match="found 2 cameras for 7 bodies"):
        render_bodies(vertices, faces, camera[:2])


def test_faces_beyond_the_vertices_are_refused():
    vertices, faces, camera = posed()
    with pytest.raises(ValueError, match="faces: found vertices 0 to 1228, expected 0 to 99"):
        render_bodies(vertices[:, :100], faces, camera)


def test_batch_beyond_memory_is_refused_before_any_work():
    triangle = torch.zeros(1, 3, 3).expand(100, 3, 3)
    camera = Camera(torch.eye(3).expand(100, 3, 3), torch.zeros(100, 3))
    with pytest.raises(ValueError, match="found 100 bodies at 4096 px, expected at most 85 in one call"):
        render_bodies(triangle, torch.tensor([[0, 1, 2]]), camera, size=4096)


def test_empty_batch_gives_no_pictures():
    vertices, faces, camera = posed()
    assert render_bodies(vertices[:0], faces, camera[:0], size=32).shape == (0, 32, 32, 3)


def test_auto_is_cpu_for_vertices_on_the_cpu():
    assert choose_backend("auto", torch.device("cpu")) == "cpu"


def failing_import(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Let `import name` raise, as if it were missing or broken."""
    original = builtins.__import__

    def imported(wanted, *args, **kwargs):  # type: ignore[no-untyped-def]
        if wanted.split(".")[0] == name:
            raise error
        return original(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", imported)


def test_auto_draws_by_tensors_where_cuda_has_no_pytorch3d(monkeypatch):
    failing_import(monkeypatch, "pytorch3d", ModuleNotFoundError("No module named 'pytorch3d'", name="pytorch3d"))
    assert choose_backend("auto", torch.device("cuda")) == "torch"
    assert choose_backend("auto", torch.device("mps")) == choose_backend("auto", torch.device("cpu")) == "cpu"


def test_missing_pytorch3d_is_named_with_the_remedy(monkeypatch):
    failing_import(monkeypatch, "pytorch3d", ModuleNotFoundError("No module named 'pytorch3d'", name="pytorch3d"))
    vertices, faces, camera = posed()
    with pytest.raises(ImportError, match=r"PyTorch3D is not installed; expected easypytorch3d==\S+ with torch 2.12.x"):
        render_bodies(vertices, faces, camera, backend="pytorch3d")


def test_pytorch3d_for_another_torch_is_named_with_both_versions(monkeypatch):
    failing_import(monkeypatch, "pytorch3d", ImportError("_C.so: undefined symbol: _ZN3c10"))
    vertices, faces, camera = posed()
    expected = rf"found torch {torch.__version__.split('+')[0]}.*expected torch 2.12.x.*undefined symbol.*torch==2.12"
    with pytest.raises(ImportError, match=expected):
        render_bodies(vertices, faces, camera, backend="pytorch3d")


def test_missing_pyrender_is_named_with_the_remedy(monkeypatch):
    failing_import(monkeypatch, "pyrender", ModuleNotFoundError("No module named 'pyrender'", name="pyrender"))
    vertices, faces, camera = posed()
    with pytest.raises(ImportError, match=r"found no module pyrender.*pip install 'mclip\[pyrender\]'"):
        render_bodies(vertices, faces, camera, backend="pyrender")


def test_missing_egl_is_named_with_the_remedy(monkeypatch):
    failing_import(monkeypatch, "pyrender", AttributeError("'NoneType' object has no attribute 'eglQueryString'"))
    vertices, faces, camera = posed()
    with pytest.raises(RuntimeError, match=r"found no working EGL \(AttributeError: .*PYOPENGL_PLATFORM=.*libegl1"):
        render_bodies(vertices, faces, camera, backend="pyrender")


def test_egl_that_opens_no_window_is_named_with_the_remedy(monkeypatch):
    def no_window(width: int, height: int) -> None:
        raise RuntimeError("eglInitialize failed")

    pyrender = ModuleType("pyrender")
    monkeypatch.setattr(pyrender, "OffscreenRenderer", no_window, raising=False)
    monkeypatch.setattr(backends, "_windows", SimpleNamespace())
    with pytest.raises(RuntimeError, match="found no working EGL .*eglInitialize failed.*or use backend cpu"):
        backends._pyrender_window(pyrender, 64)
