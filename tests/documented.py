"""Commands of README and docs, and the test that runs each of them."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"(make|dvc|sbatch) |python -m stages\.|-S ")
VARIABLES = re.compile(r"^((\w+=\$\()|[A-Z_]+=\S* )")

# As written, and as run on the small project of tests/jobs, one after another.
ON_PROJECT = {
    "python -m stages.submit --dry-run": "",
    "python -m stages.submit --local --jobs 2": "",
    "python -m stages.submit status": "",
    "python -m stages.submit record": "",
    "python -m stages.submit logs": "",
    "python -m stages.submit logs train": "python -m stages.submit logs double",
    "python -m stages.submit cancel": "",
    "python -m stages.submit cancel --number 3": "python -m stages.submit cancel --number 1",
    "dvc status": "",
    "dvc repro": "",
    "dvc repro -k": "",
    "dvc repro -s": "dvc repro -s total",
    "dvc repro -s STAGE": "dvc repro -s total",
    "dvc repro -s fixed_views@<scene>-base": "dvc repro -s double@a",
    "dvc repro prepare@<scene>": "dvc repro make@a",
    "dvc repro evaluate compare decide": "dvc repro double total",
    "dvc repro base": "dvc repro make",
    "dvc repro weights": "dvc repro make",
    "dvc repro weights base": "dvc repro make double",
    "dvc repro -f evaluate": "dvc repro -f double",
    "dvc repro -f weights": "dvc repro -f make",
    "dvc --wait-for-lock repro": "",
    "dvc commit -f train@SCENE": "dvc commit -f double@a",
    "dvc checkout": "",
    "dvc checkout data/splats/SCENE": "dvc checkout data/a/a.txt",
    "dvc config --local cache.type hardlink,symlink,copy": "",
    "dvc checkout --relink": "",
    "dvc config --local cache.type symlink": "",
    "dvc config --local cache.shared group": "",
    "dvc gc --workspace": "dvc gc --workspace --force",
    "dvc metrics show": "",
    "dvc metrics show metrics/scenes": "dvc metrics show metrics",
    "dvc metrics show metrics/calibrate": "dvc metrics show metrics",
    "dvc metrics show metrics/pairs": "dvc metrics show metrics",
    "dvc metrics show FILE": "dvc metrics show metrics/a.json",
    "dvc metrics show metrics/averages.json": "dvc metrics show metrics/a.json",
    "dvc metrics show metrics/tune.json": "dvc metrics show metrics/a.json",
    "dvc exp run -S study.subject=none": "dvc exp run -S plus=1",
    "dvc metrics diff": "",
    "dvc exp run": "",
    "dvc exp run compare": "dvc exp run total",
    "dvc exp run --temp": "dvc exp run --temp -S plus=2",
    "dvc exp show": "",
    "dvc exp show --only-changed": "",
    "dvc exp show --only-changed --drop data --drop metrics": "",
    "dvc metrics diff --targets FILE": "dvc metrics diff --targets metrics/a.json",
    "dvc metrics diff --targets metrics/summary.json": (
        "dvc metrics diff --targets metrics/a.json"
    ),
    "dvc metrics diff --targets metrics/delta.json": "dvc metrics diff --targets metrics/a.json",
    "dvc metrics diff --targets metrics/subject.json": (
        "dvc metrics diff --targets metrics/a.json"
    ),
    "dvc metrics diff --targets metrics/captures metrics/static": (
        "dvc metrics diff --targets metrics total.json"
    ),
    "dvc metrics diff HEAD~1": "",
    "python -m stages.submit --local -n other-pairs -S pairs.reference.strategy=temporal": (
        "python -m stages.submit --local -n longer -S plus=3"
    ),
    "dvc metrics diff HEAD longer": "",
    "dvc metrics diff HEAD longer --targets metrics/captures": (
        "dvc metrics diff HEAD longer --targets metrics"
    ),
    "dvc exp apply longer": "",
    "dvc remote add -d store s3://BUCKET/splatfix": "",
    "dvc remote modify store endpointurl https://ENDPOINT": "",
    "dvc remote modify store read_timeout 30": "",
    "dvc remote modify store connect_timeout 10": "",
    "dvc remote modify --local store profile splatfix": "",
    "dvc cache dir --local /shared/splatfix-cache": "dvc cache dir --local ../cache",
    "dvc cache dir --local /SHARED/cache": "dvc cache dir --local ../cache",
    "dvc config --local core.hardlink_lock true": "",
}
# As written, and as run on the reduced study of tests/test_pipeline.py.
ON_STUDY = {
    "python -m stages.check": "",
    "python -m stages.check --memo": "",
    "python -m stages.plan": "",
    "python -m stages.plan --record": "",
    "python -m stages.doctor": "python -m stages.doctor --quick",
    "python -m stages.weights": "",
    "dvc repro code": "",
    "dvc repro report": "",
    "dvc plots show": "",
    "python -m stages.ablate KEY=A,B": (
        "python -m stages.ablate train.opacities_lr=0.05,0.04 --dry-run"
    ),
    "python -m stages.ablate tune.seed=0,1,2": "python -m stages.ablate tune.seed=0,1,2 --dry-run",
    "python -m stages.ablate tune.rank=0,8 tune.keep=last,best": (
        "python -m stages.ablate tune.rank=0,8 tune.keep=last,best --dry-run"
    ),
    "python -m stages.ablate pairs.reference.strategy=same_time,temporal,mixed "
    "pairs.poses=imperfect,given": (
        "python -m stages.ablate pairs.reference.strategy=same_time,temporal,mixed "
        "pairs.poses=imperfect,given --dry-run"
    ),
}
_IMPORTS, _S3 = "tests/jobs/test_import_url.py", "tests/jobs/test_s3.py"
_CAPTURES, _FIX = "tests/test_capture_entries.py", "tests/test_capture_fix.py"
_SLURM, _SCRIPTS = "tests/jobs/test_on_slurm.py", "tests/jobs/test_slurm_scripts.py"
_ABLATE, _MAKE = "tests/workspace/test_ablate_run.py", "tests/repo/test_makefile.py"
_EXPERIMENT = "tests/test_pipeline.py::test_experiment_changes_metrics_and_only_its_own_stages"
_REPRO = (
    "tests/test_pipeline.py::"
    "test_repro_counts_its_stages_says_a_note_once_and_ends_with_the_decision"
)
_FILM = "tests/splat/test_kept_views.py::test_command_renders_the_film"
_RECORDING = "tests/splat/test_tuning_recording.py::test_samples_and_curves_are_over_steps"
_VIEW = "tests/test_pipeline.py::test_viewer_is_served_until_it_is_stopped"
_WATCH = "tests/splat/test_watch.py::test_browser_gets_a_training_while_it_runs_and_then_its_result"
_CURVES = "tests/run/test_curves.py"
_STATIC, _FOREIGN = "tests/test_static.py", "tests/splat/test_foreign_results.py"
_PLACES = "tests/repo/test_documented.py::test_experiment_has_the_stages_that_it_names"
_FRONT, _PLOTS = "tests/repo/test_front_page.py", "tests/pages/test_plots_page.py"
# As written, and the test that runs it, or what it stands for, elsewhere.
ELSEWHERE = {
    "dvc artifacts get REPOSITORY fixer-tuned": (
        f"{_FRONT}::test_artifact_can_be_fetched_by_its_name"
    ),
    "dvc artifacts get REPOSITORY fixer-tuned --rev v0.1.0": (
        f"{_FRONT}::test_artifact_can_be_fetched_by_its_name"
    ),
    "dvc plots diff": f"{_PLOTS}::test_revisions_have_their_own_colours_and_a_legend",
    "dvc config --unset plots.html_template": (
        f"{_PLOTS}::test_page_of_dvc_comes_back_when_ours_is_unset"
    ),
    "python -m stages.capture_evaluate RESULT EVAL_DIR --trained-on DATA_DIR": (
        f"{_FOREIGN}::test_gsplats_ply_measures_as_the_result"
    ),
    "python -m stages.check -S 'weights.nets=[alex,squeeze]' -S 'evaluate.lpips.also=[squeeze]'": (
        "tests/repo/test_first_hour.py"
        "::test_every_command_is_run_or_looked_up_and_prints_what_the_page_says"
    ),
    **dict.fromkeys(
        ("make setup", "make repro", "make repro JOBS=1", "make test", "make lint"),
        f"{_MAKE}::test_targets_run_the_ordinary_commands",
    ),
    **dict.fromkeys(
        ("make setup GPU=cuda12", "make setup GPU="),
        f"{_MAKE}::test_packages_for_older_gpus_are_chosen_and_kept",
    ),
    "dvc import-url <folder> data/raw/<scene>": (
        f"{_IMPORTS}::test_folder_is_imported_prepared_and_updated"
    ),
    "dvc import-url /datasets/hi4d/pair15/fight15 data/raw/hi4d_pair15_fight": (
        f"{_IMPORTS}::test_folder_is_imported_prepared_and_updated"
    ),
    "dvc repro prepare@hi4d_pair15_fight": (
        f"{_IMPORTS}::test_folder_is_imported_prepared_and_updated"
    ),
    "dvc update data/raw/hi4d_pair15_fight.dvc": (
        f"{_IMPORTS}::test_folder_is_imported_prepared_and_updated"
    ),
    "dvc import-url s3://BUCKET/hi4d/pair15/fight15 data/raw/hi4d_pair15_fight --fs-config "
    "read_timeout=30": f"{_IMPORTS}::test_folder_is_imported_from_s3",
    "dvc import-url https://HOST/model.pkl data/import/model.pkl": (
        f"{_IMPORTS}::test_checkpoint_is_imported"
    ),
    "dvc push": f"{_S3}::test_clone_pulls_what_was_pushed_and_has_nothing_to_do",
    "dvc pull": f"{_S3}::test_clone_pulls_what_was_pushed_and_has_nothing_to_do",
    "dvc repro --pull --allow-missing --single-item train@SCENE": (
        f"{_S3}::test_node_fetches_only_what_its_stage_needs"
    ),
    "dvc exp push origin NAME": f"{_S3}::test_experiment_travels_with_its_params_and_metrics",
    "dvc exp pull origin NAME": f"{_S3}::test_experiment_travels_with_its_params_and_metrics",
    "dvc exp apply NAME": f"{_S3}::test_experiment_travels_with_its_params_and_metrics",
    "dvc exp run -S train.max_steps=2000": _EXPERIMENT,
    "dvc exp run -S weights.download=false weights": _PLACES,
    "python -m stages.repro --jobs 2": (
        "tests/test_pipeline.py::test_repro_of_several_stages_at_once_ends_alike"
    ),
    "python -m stages.repro": _REPRO,
    "dvc repro -f checkpoints": (
        "tests/test_checkpoints.py::test_a_named_fixer_that_went_away_is_named_with_what_to_run"
    ),
    "python -m stages.pretrain": (
        "tests/difix/test_worlds_fixer.py::test_the_entry_packs_a_readable_fixer"
    ),
    "python -m stages.pretrain --out fixer.safetensors": (
        "tests/difix/test_worlds_fixer.py::test_the_entry_packs_a_readable_fixer"
    ),
    **dict.fromkeys(
        ("python -m stages.worlds", "python -m stages.worlds --out FOLDER"),
        "tests/difix/test_worlds_files.py"
        "::test_worlds_become_a_dataset_that_a_fixer_can_be_trained_on",
    ),
    "python -m stages.ablate": f"{_ABLATE}::test_policies_of_references_in_one_command",
    "python -m stages.ablate difix.reference_from=nearest,overlap,previous": (
        f"{_ABLATE}::test_policies_of_references_in_one_command"
    ),
    "python -m stages.film SCENE SCENE_path.json film.mp4": _FILM,
    "python -m stages.tuning_recording tuning.rrd": _RECORDING,
    "python -m stages.watch": _WATCH,
    "python -m stages.watch SCENE": _WATCH,
    "python -m stages.curves mlflow --to http://TRACKING_SERVER:5000 --follow": (
        f"{_CURVES}::test_server_gets_each_point_once_and_another_beginning_is_another_run"
    ),
    "python -m stages.curves dvclive --to live --follow": (
        f"{_CURVES}::test_command_sends_what_is_there_and_follows"
    ),
    "python -m stages.view": _VIEW,
    "python -m stages.view SCENE": _VIEW,
    "python -m stages.view hi4d_pair15_fight": _VIEW,
    "python -m stages.view SCENE --method tuned-distill": _VIEW,
    "python -m stages.capture_calibrate IMAGES DATASET_DIR": (
        f"{_CAPTURES}::test_images_without_a_model_get_poses_first"
    ),
    "python -m stages.capture_train DATA_DIR RESULT_DIR [MATCH_STRING]": (
        f"{_CAPTURES}::test_folders_are_trained_and_evaluated"
    ),
    "python -m stages.capture_evaluate RESULT_DIR EVAL_DIR": (
        f"{_CAPTURES}::test_folders_are_trained_and_evaluated"
    ),
    "python -m stages.capture_evaluate ckpts/ckpt_29999_rank0.pt EVAL_DIR --trained-on DATA_DIR": (
        f"{_FOREIGN}::test_gsplats_checkpoint_measures_as_the_result"
    ),
    "python -m stages.capture_evaluate RESULT EVAL_DIR --trained-on DATA_DIR --output DIR": (
        f"{_FOREIGN}::test_gsplats_ply_measures_as_the_result"
    ),
    "python -m stages.static_prepare SCENE_DIR": (
        f"{_SCRIPTS}::test_static_scripts_in_a_chain_with_their_variables"
    ),
    "python -m stages.static_train SCENE_DIR --camera stereo": (
        f"{_STATIC}::test_evaluation_measures_covisible_pixels"
    ),
    "python -m stages.static_evaluate SCENE_DIR --camera stereo": (
        f"{_STATIC}::test_evaluation_measures_covisible_pixels"
    ),
    "python -m stages.capture_fix": f"{_FIX}::test_methods_are_measured_as_the_plain_views",
    "python -m stages.capture_fix DATA_DIR RESULT_DIR EVAL_DIR --fixer data/difix/tuned": (
        f"{_FIX}::test_methods_are_measured_as_the_plain_views"
    ),
    "python -m stages.static_fix SCENE_DIR --camera stereo --fixer data/difix/tuned": (
        f"{_FIX}::test_static_camera_is_measured_inside_the_masks_of_the_plain_views"
    ),
    "python -m stages.overlay studies/<version>.yaml --check": (
        "tests/test_overlay.py::test_check_prints_each_change_and_writes_nothing"
    ),
    "python -m stages.submit": f"{_SLURM}::test_jobs_leave_what_repro_leaves",
    "python -m stages.export tuned --form pkl": (
        "tests/difix/test_exports.py::test_command_exports_both_forms_and_prints_how_to_open_them"
    ),
    "python -m stages.export tuned --form diffusers": (
        "tests/difix/test_exports.py::test_command_exports_both_forms_and_prints_how_to_open_them"
    ),
    "python -m stages.export dataset --form json": (
        "tests/difix/test_exports.py::test_dataset_opens_in_their_loader_from_any_folder"
    ),
    "python -m stages.submit evaluate": (
        f"{_SLURM}::test_stop_before_the_limit_queues_again_and_changes_no_result"
    ),
    "python -m stages.submit -n NAME": (
        f"{_SLURM}::test_experiments_of_a_project_in_a_folder_of_its_repository"
    ),
    "python -m stages.submit -n longer -S train.max_steps=2000": (
        f"{_SLURM}::test_experiments_of_a_project_in_a_folder_of_its_repository"
    ),
    "python -m stages.submit cancel train": (
        f"{_SLURM}::test_preempted_job_comes_back_and_a_cancelled_one_does_not"
    ),
    "python -m stages.submit script slurm/dual_training.slurm DATA_DIR RIGHT": (
        f"{_SCRIPTS}::test_configured_nodes_and_options_reach_a_script"
    ),
}


def commands(text: str) -> list[str]:
    """Commands in code, also several on a line, without comments and prompts."""
    code = "\n".join([*FENCED.findall(text), *INLINE.findall(FENCED.sub("", text))])
    lines = code.replace("\\\n", " ").splitlines()
    bare = [re.sub(r"\s#.*", "", line.strip().removeprefix("$ ")) for line in lines]
    parts = [part.strip() for line in bare for part in re.split(r";|&&|\|", line)]
    parts = [VARIABLES.sub("", part).rstrip(")") for part in parts]
    return list(dict.fromkeys(part for part in parts if COMMAND.match(part)))


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page.read_text())))


def settings(command: str) -> list[str]:
    """What a command sets by `-S`."""
    words = shlex.split(command)
    return [after for word, after in itertools.pairwise(words) if word == "-S"]


def unplaced() -> Iterator[str]:
    """Commands that no test is known to run.

    Those with `-S` and overlays are checked, as a user checks them, in test_documented; scripts
    run in tests/jobs.
    """
    known = ("-S ", "dvc exp run -S ", "python -m stages.overlay studies/", "sbatch ")
    placed = {**ON_PROJECT, **ON_STUDY, **ELSEWHERE}
    yield from (one for one in COMMANDS if one not in placed and not one.startswith(known))
