"""Paths of every stage's files, relative to the root of the repository; entries alone use them.

`data/` is tracked by DVC, `metrics/` by git. Names come from params, so each passes `safe_name`.
"""

from pathlib import Path

from stages.run.files import safe_name
from stages.run.methods import PLAIN, Method

DATA = Path("data")
METRICS = Path("metrics")
RESULTS = Path("results")
EXPORTS = Path("exports")
HERE = Path()
COSTS = METRICS / "costs.json"
WEIGHTS = DATA / "weights"


def _folder(kind: str, *names: str) -> Path:
    return Path(DATA, kind, *(safe_name(name, f"data/{kind}") for name in names))


def _metric(kind: str, *names: str, suffix: str) -> Path:
    *folders, last = (safe_name(name, f"metrics/{kind}") for name in names)
    return Path(METRICS, kind, *folders, last + suffix)


def _by(method: str, name: str) -> tuple[str, ...]:
    """Names of a method's file: all of a fixer are in one folder."""
    parsed = Method.parse(method)
    return (parsed.fixer, f"{name}-{parsed.form}") if parsed.form else (name,)


def raw(scene: str) -> Path:
    """A sequence in Hi4D's raw layout: imported by the user or made by the demo source."""
    return _folder("raw", scene)


def demo(name: str) -> Path:
    """Embedded data as generated; stage `raw` copies it to where raw data is read from."""
    return _folder("demo", name)


def embedded(*names: str) -> dict[Path, Path]:
    """Folders of embedded data, with the places of their copies among the raw data."""
    return {demo(name): raw(name) for name in names}


def scene(scene: str) -> Path:
    """Images, true cameras and roles of a scene."""
    return _folder("scenes", scene)


def calibrated(scene: str) -> Path:
    """Estimated poses and sparse points."""
    return _folder("calibrated", scene)


def splats(scene: str) -> Path:
    """Trained Gaussians, one folder per timestamp."""
    return _folder("splats", scene)


def novel_views(scene: str, method: str) -> Path:
    """Novel views by one method; all methods of a fixer share a folder.

    >>> str(novel_views("s", "none")), str(novel_views("s", "tuned-post"))
    ('data/novel_views/s/none', 'data/novel_views/s/tuned/post')
    """
    return _folder("novel_views", scene, *Method.parse(method).parts)


def fixed_views(scene: str, fixer: str) -> Path:
    """Novel views by all methods of one fixer."""
    return _folder("novel_views", scene, fixer)


def pairs(scene: str) -> Path:
    """Tuning samples of a scene: image, target_image and ref_image."""
    return _folder("pairs", scene)


def dataset() -> Path:
    """Samples of all scenes in DiFix's format."""
    return DATA / "difix" / "dataset.json"


def fixer(name: str) -> Path:
    """A fixer, `base` or `tuned`, with its card; the tuned one with sheets of samples."""
    return _folder("difix", name)


def checkpoint(key: str) -> Path:
    """A link to the fixer that a param names, or a line of text.

    >>> str(checkpoint("tune.init_from"))
    'data/checkpoints/tune.init_from'
    """
    return _folder("checkpoints", key)


def base() -> Path:
    """The untuned fixer."""
    return fixer("base")


def tuned() -> Path:
    """The tuned fixer."""
    return fixer("tuned")


def export(name: str) -> Path:
    """A fixer in forms for other programs."""
    return EXPORTS / safe_name(name, EXPORTS)


def tune_metrics() -> Path:
    """Input, untuned and tuned fixer on the internal-eval samples."""
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
    """Number of a scene's samples, quality of their renders, and a digest of all."""
    return _metric("pairs", scene, suffix=".json")


def manifest_metrics() -> Path:
    """Sizes of the two splits and the guard's verdict on them."""
    return METRICS / "manifest.json"


def scene_metrics(scene: str, method: str) -> Path:
    """Mean PSNR, SSIM and LPIPS of a scene's target views."""
    return _metric("scenes", scene, method, suffix=".json")


def view_metrics(scene: str, method: str) -> Path:
    """The same measures of each view."""
    return _metric("views", scene, method, suffix=".tsv")


def frontier(scene: str, method: str) -> Path:
    """Means of a scene at each strength of a method, by blends of raw and fixed renders."""
    return _metric("frontier", scene, method, suffix=".tsv")


def evaluation(scene: str, method: str, root: Path = HERE) -> tuple[Path, Path]:
    """The two files of stage `evaluate`, means of a scene and its views, below `root`."""
    return root / scene_metrics(scene, method), root / view_metrics(scene, method)


def averaged() -> tuple[Path, Path]:
    """The two files of stage `average`: means of the downstream scenes, and their views."""
    return METRICS / "averages.json", METRICS / "plots" / "averages.tsv"


def summary() -> Path:
    """Every method's means over the downstream scenes."""
    return METRICS / "summary.json"


def headline() -> Path:
    """Means of the study's subject and of the plain splat: what `dvc metrics show` has."""
    return METRICS / "headline.json"


def subject() -> Path:
    """The measures of the study's subject by scene and in the mean."""
    return METRICS / "subject.json"


def delta() -> Path:
    """Paired differences between methods."""
    return METRICS / "delta.json"


def delta_table() -> Path:
    """The same with intervals: one row per comparison, scene and metric."""
    return METRICS / "plots" / "delta.tsv"


def frontier_table() -> Path:
    """Every scene by every method and strength, and the mean over the downstream scenes."""
    return METRICS / "plots" / "frontier.tsv"


def decision() -> Path:
    """The decision snapshot as Markdown."""
    return METRICS / "decision.md"


def capture(capture: str) -> Path:
    """A capture as a COLMAP dataset: images and sparse/0."""
    return _folder("captures", capture)


def eval_set(capture: str) -> Path:
    """The COLMAP dataset that a capture is evaluated on, unchanged."""
    return _folder("raw", f"{capture}_eval")


def result(capture: str, variant: str) -> Path:
    """Results of a variant of a capture: train/ and eval_on_<set>/."""
    return Path(RESULTS, *(safe_name(name, RESULTS) for name in (capture, variant)))


def capture_metrics(capture: str, name: str, method: str = PLAIN) -> Path:
    """Metrics of a capture: `calibrate`, a variant, or a variant on its evaluation set.

    >>> str(capture_metrics("room", "combined", "tuned-post"))
    'metrics/captures/room/tuned/combined-post.json'
    """
    return _metric("captures", capture, *_by(method, name), suffix=".json")


def capture_curve(capture: str, variant: str) -> Path:
    """Loss and number of Gaussians of a variant by step."""
    return Path(
        METRICS, "plots", "captures", *(safe_name(n, METRICS) for n in (capture, variant))
    ).with_suffix(".tsv")


def fixed(name: str, fixer: str) -> Path:
    """Evaluated views of a capture or a static scene by a fixer, by variant or kind of camera."""
    return Path(RESULTS, "fixed", *(safe_name(part, RESULTS) for part in (name, fixer)))


def static_shared(scene: str) -> Path:
    """A prepared static scene, shared by all kinds of camera."""
    return _folder("static", scene) / "shared"


def static_results(scene: str) -> Path:
    """Results of a static scene, one folder per kind of camera."""
    return Path(RESULTS, "static", safe_name(scene, RESULTS))


def static_prepare_metrics(scene: str) -> Path:
    """Registered images, reprojection and pose errors of a static scene."""
    return _metric("static/prepare", scene, suffix=".json")


def static_train_metrics(scene: str, camera: str) -> Path:
    """Training-view quality and Gaussian count of one kind of camera."""
    return _metric("static/train", scene, camera, suffix=".json")


def static_metrics(scene: str, camera: str, method: str = PLAIN) -> Path:
    """Means over the eval frames, inside masks and over whole images."""
    return _metric("static/scenes", scene, *_by(method, camera), suffix=".json")


def static_views(scene: str, camera: str) -> Path:
    """The same measures of each eval frame."""
    return _metric("static/views", scene, camera, suffix=".tsv")


def static_table(suffix: str) -> Path:
    """All static scenes by all kinds of camera, with mean and deviation; `.json` or `.tsv`."""
    return METRICS / "static" / f"table{suffix}"


def report() -> Path:
    """The study on one page."""
    return METRICS / "report" / "index.html"


def brief_report() -> Path:
    """The study on one small page, which git keeps."""
    return METRICS / "report.html"


def readme_image() -> Path:
    """What the subject makes of a view, for the README."""
    return METRICS / "fixed_people.jpg"


def shown(scene: str) -> Path:
    """A scene's viewer, videos and files for other viewers, beside the report that links them."""
    return METRICS / "report" / "scenes" / safe_name(scene, "metrics/report")


def gains() -> Path:
    """Differences to the plain splat, one row per method and downstream scene."""
    return METRICS / "plots" / "gains.tsv"


def strips() -> Path:
    """One image per scene: the ground truth and every method at one view."""
    return METRICS / "report" / "strips"
