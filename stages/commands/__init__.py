"""Commands that are no stages of dvc.yaml; `python -m stages.<name>` runs each."""
