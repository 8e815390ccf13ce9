"""Where every stage reads and writes, relative to the root of the repository.

`data/` belongs to DVC, `metrics/` to git. Names come from params, so each passes `safe_name`.
"""

from pathlib import Path

from stages.run.files import safe_name
from stages.run.methods import Method

DATA = Path("data")
METRICS = Path("metrics")
RESULTS = Path("results")
HERE = Path()
COSTS = METRICS / "costs.json"
WEIGHTS = DATA / "weights"


def _folder(kind: str, *names: str) -> Path:
    return Path(DATA, kind, *(safe_name(name, f"data/{kind}") for name in names))


def _metric(kind: str, *names: str, suffix: str) -> Path:
    *folders, last = (safe_name(name, f"metrics/{kind}") for name in names)
    return Path(METRICS, kind, *folders, last + suffix)


def raw(scene: str) -> Path:
    """A sequence in Hi4D's raw layout: imported by the user or made by the demo source."""
    return _folder("raw", scene)


def demo(name: str) -> Path:
    """Embedded data as its stage made it; stage `raw` copies it to where raw data is sought."""
    return _folder("demo", name)


def embedded(*names: str) -> dict[Path, Path]:
    """Where embedded data is made, and where its copy is sought as raw data."""
    return {demo(name): raw(name) for name in names}


def scene(scene: str) -> Path:
    """Images, true cameras and roles."""
    return _folder("scenes", scene)


def calibrated(scene: str) -> Path:
    """Estimated poses and sparse points."""
    return _folder("calibrated", scene)


def splats(scene: str) -> Path:
    """Trained Gaussians, one folder a timestamp."""
    return _folder("splats", scene)


def novel_views(scene: str, method: str) -> Path:
    """Pictures of the target cameras by one method; all methods of a fixer lie in one folder.

    >>> str(novel_views("s", "none")), str(novel_views("s", "tuned-post"))
    ('data/novel_views/s/none', 'data/novel_views/s/tuned/post')
    """
    return _folder("novel_views", scene, *Method.parse(method).parts)


def fixed_views(scene: str, fixer: str) -> Path:
    """Pictures of the target cameras by all methods of one fixer."""
    return _folder("novel_views", scene, fixer)


def pairs(scene: str) -> Path:
    """Tuning samples of a scene: image, target_image and ref_image."""
    return _folder("pairs", scene)


def dataset() -> Path:
    """Samples of all scenes in DiFix's own form."""
    return DATA / "difix" / "dataset.json"


def fixer(name: str) -> Path:
    """A fixer, `base` or `tuned`, with its card; the tuned one with sheets of samples."""
    return _folder("difix", name)


def base() -> Path:
    """The untuned fixer."""
    return fixer("base")


def tuned() -> Path:
    """The tuned fixer."""
    return fixer("tuned")


def tune_metrics() -> Path:
    """Input, untuned and tuned fixer on the internal-eval pairs."""
    return METRICS / "tune.json"


def tune_curve(kind: str) -> Path:
    """A curve of the tuning by step: `loss` or `validation`."""
    return METRICS / "plots" / "tune" / f"{safe_name(kind, 'metrics/plots')}.tsv"


def calibrate_metrics(scene: str) -> Path:
    """Registered cameras, reprojection and pose errors of a scene."""
    return _metric("calibrate", scene, suffix=".json")


def train_metrics(scene: str) -> Path:
    """Training-view quality and Gaussian counts of a scene."""
    return _metric("train", scene, suffix=".json")


def train_curves(scene: str) -> Path:
    """Loss, PSNR and Gaussian count by step: step, timestamp, loss, psnr, gaussians."""
    return METRICS / "plots" / "train" / f"{safe_name(scene, 'metrics/plots')}.tsv"


def pairs_metrics(scene: str) -> Path:
    """How many pairs a scene has, how good their inputs are, and a digest of all of them."""
    return _metric("pairs", scene, suffix=".json")


def manifest_metrics() -> Path:
    """Sizes of the two splits and the guard's verdict on them."""
    return METRICS / "manifest.json"


def scene_metrics(scene: str, method: str) -> Path:
    """Mean PSNR, SSIM and LPIPS of a scene's target views; all methods lie in one folder."""
    return _metric("scenes", scene, method, suffix=".json")


def view_metrics(scene: str, method: str) -> Path:
    """The same numbers for each view; all methods lie in one folder."""
    return _metric("views", scene, method, suffix=".tsv")


def evaluation(scene: str, method: str, root: Path = HERE) -> tuple[Path, Path]:
    """The two files of stage `evaluate`, means of a scene and its views, below `root`."""
    return root / scene_metrics(scene, method), root / view_metrics(scene, method)


def summary() -> Path:
    """Every method's mean over the evaluated scenes."""
    return METRICS / "summary.json"


def headline() -> Path:
    """The numbers of the method that `study.subject` names."""
    return METRICS / "headline.json"


def delta() -> Path:
    """Paired differences between methods."""
    return METRICS / "delta.json"


def delta_table() -> Path:
    """The same with their intervals: one row a comparison, scene and metric."""
    return METRICS / "plots" / "delta.tsv"


def decision() -> Path:
    """The decision snapshot in words."""
    return METRICS / "decision.md"


def capture(capture: str) -> Path:
    """A capture as a COLMAP dataset: images and sparse/0."""
    return _folder("captures", capture)


def eval_set(capture: str) -> Path:
    """The COLMAP dataset that a capture is evaluated on, as it came."""
    return _folder("raw", f"{capture}_eval")


def result(capture: str, variant: str) -> Path:
    """What a variant of a capture gave; train/ and eval_on_<set>/ lie in it."""
    return Path(RESULTS, *(safe_name(name, RESULTS) for name in (capture, variant)))


def capture_metrics(capture: str, name: str) -> Path:
    """Numbers of a capture: `calibrate`, a variant, or a variant on its evaluation set."""
    return _metric("captures", capture, name, suffix=".json")


def capture_curve(capture: str, variant: str) -> Path:
    """Loss and Gaussians of a variant by step."""
    return Path(
        METRICS, "plots", "captures", *(safe_name(n, METRICS) for n in (capture, variant))
    ).with_suffix(".tsv")


def static_shared(scene: str) -> Path:
    """A prepared static scene: what all kinds of camera share."""
    return _folder("static", scene) / "shared"


def static_results(scene: str) -> Path:
    """Results of a static scene, one folder a kind of camera."""
    return Path(RESULTS, "static", safe_name(scene, RESULTS))


def static_prepare_metrics(scene: str) -> Path:
    """Registered photographs, reprojection and pose errors of a static scene."""
    return _metric("static/prepare", scene, suffix=".json")


def static_train_metrics(scene: str, camera: str) -> Path:
    """Training-view quality and Gaussian count of one kind of camera."""
    return _metric("static/train", scene, camera, suffix=".json")


def static_metrics(scene: str, camera: str) -> Path:
    """Means over the eval frames, inside masks and over whole pictures."""
    return _metric("static/scenes", scene, camera, suffix=".json")


def static_views(scene: str, camera: str) -> Path:
    """The same numbers for each eval frame."""
    return _metric("static/views", scene, camera, suffix=".tsv")


def static_table(suffix: str) -> Path:
    """All static scenes by all kinds of camera, with average and deviation; `.json` or `.tsv`."""
    return METRICS / "static" / f"table{suffix}"


def report() -> Path:
    """The study on one page."""
    return METRICS / "report" / "index.html"


def shown(scene: str) -> Path:
    """A scene's viewer, films and files for other viewers, beside the report that links them."""
    return METRICS / "report" / "scenes" / safe_name(scene, "metrics/report")


def gains() -> Path:
    """Differences to the plain splat, one row a method and downstream scene."""
    return METRICS / "plots" / "gains.tsv"


def strips() -> Path:
    """A picture a scene: the photograph and every method, of one view."""
    return METRICS / "report" / "strips"
