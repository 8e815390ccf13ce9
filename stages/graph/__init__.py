"""The repository as DVC knows it; the only package that imports DVC."""
