"""params.yaml as typed, frozen sections; all errors at once, each with its line and nearest key.

YAML is read as DVC reads it (ruamel, YAML 1.2): `no` is a string and `1e-4` a number.

A section such as `train:` is a recipe: results depend on it, stages list it in dvc.yaml, and resume
states are tied to it. Settings that no result depends on are in `runtime.train:`; their model is
the field `runtime` of the recipe's model, and both are built together.
"""

import argparse
import difflib
import json
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarbool import ScalarBoolean

from stages.run.errors import UserError, raise_all
from stages.run.plurals import counted
from stages.run.settings import overrides as command_line
from stages.run.settings import readings
from stages.run.settings.names import is_name, name_rule

RUNTIME = "runtime"
CHECK = "edit the line, then run `python -m stages.check`"
_LINES = "`key: value` lines"
# What pydantic says less plainly, by type of error.
_WORDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number other than inf and nan",
    "string_type": "a text",
    "none_required": "null",
    "model_type": _LINES,
    "dict_type": _LINES,
}


# A path in a section; `~` is expanded here, since no shell reads the file.
PathText = Annotated[str, AfterValidator(os.path.expanduser)]


def text_like(pattern: str, words: str) -> AfterValidator:
    """A rule for texts by a pattern of the whole text; its message says `words`."""

    def checked(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(words)
        return value

    return AfterValidator(checked)


class Section(BaseModel):
    """Base of every config section: frozen, unknown keys refused, no silent conversions.

    A list in YAML becomes a tuple, so fields are annotated `tuple[...]`. Defaults are written in
    the class only; params.yaml states the values in force.
    """

    # YAML reads inf and nan as numbers, and they pass most comparisons.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def recipe_keys(cls) -> list[str]:
        """Keys of the section in params.yaml that results depend on."""
        return [key for key in cls.model_fields if key != RUNTIME]

    @classmethod
    def runtime_model(cls) -> "type[Section] | None":
        """The model of the section's part of `runtime:`, if any."""
        field = cls.model_fields.get(RUNTIME)
        return None if field is None else field.annotation

    def recipe(self) -> str:
        """All values that a result depends on, as text; resume states are tied to it."""
        return self.model_dump_json()


def runtime_field(default: Section) -> Any:
    """The field `runtime` of a recipe, which is excluded from its dumps."""
    return Field(default=default, exclude=True)


S = TypeVar("S", bound=Section)


class Params:
    """One parsed params.yaml with the line of every key."""

    def __init__(self, raw: Mapping[str, Any], path: Path):
        self.raw, self.path = raw, path
        self.overridden: set[tuple[str, ...]] = set()
        self.recipes: list[Params] = []  # whose values replace those of the file, the last first
        self._built: set[tuple[str, ...]] = set()
        self.reading = readings.Reading(path, b"")

    @classmethod
    def read(
        cls, path: Path | str = "params.yaml", overrides: Sequence[str | Path] = ()
    ) -> "Params":
        """Parse the file, then replace values by those of recipes, then by other overrides.

        Args:
            path: the file, which stays as it is.
            overrides: texts `section.key=value`, and paths of recipes: files that hold some of the
                keys of params.yaml, such as studies/full.yaml. Later ones replace earlier ones.

        Raises UserError when a file is missing, not YAML, or lacks a key that is replaced.
        """
        name_another = "name a file with keys of params.yaml, such as studies/full.yaml"
        paths = [item for item in overrides if isinstance(item, Path)]
        recipes = [cls._parsed(item, name_another) for item in paths]
        # The last reading is the one that children get.
        params = cls._parsed(Path(path), "run from the root of the repository")
        for recipe in recipes:
            params._replace_by(recipe)
        texts = [item for item in overrides if not isinstance(item, Path)]
        if texts:
            params._override(command_line.parse(texts))
        return params

    @classmethod
    def _parsed(cls, path: Path, fix: str) -> "Params":
        try:
            content, reading = readings.read_content(path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise UserError(path, "no such file", fix=fix) from error
        try:
            raw = readings.parse_yaml(content)
        except readings.InvalidYaml as error:
            at = f"{path}:{error.line}" if error.line else path
            raise UserError(at, f"not YAML: {error}", fix=CHECK) from error
        if not isinstance(raw, CommentedMap):
            raise UserError(path, "no sections", expected="`name: {...}` sections", fix=CHECK)
        params = cls(raw, path)
        params.reading = reading
        return params

    def _replace_by(self, recipe: "Params") -> None:
        """Replace values by those of a recipe. Raises UserError with all keys that are unknown."""
        from stages.run.settings.edits import changes  # which imports this module

        for change in changes(self, recipe):
            node: Any = self.raw
            for key in change.keys[:-1]:
                node = node[key]
            node[change.keys[-1]] = change.new
        self.recipes.insert(0, recipe)
        recipe.reading.keys = self.reading.keys  # edits of either count

    def _override(self, overrides: list[tuple[tuple[str, ...], Any, bool]]) -> None:
        self.overridden = {keys for keys, _, _ in overrides}
        try:
            command_line.apply(self.raw, overrides)
        except KeyError as error:
            keys = error.args[0]
            parent: Any = self.raw
            for key in keys[:-1]:
                parent = parent[key]
            where = f"{command_line.origin(keys)}  {'.'.join(keys)}"
            raise no_such_key(where, self.path, self.raw, keys, parent) from error

    def section(self, name: str, model: type[S]) -> S:
        """Build one section, such as `train`. Raises UserError with all of its errors."""
        self.reading.keys.add((name,))
        value, errors = self.check((name,), model)
        raise_all(errors)
        assert value is not None, f"section {name} has neither a value nor an error"
        return value

    def value(self, name: str, key: str, model: type[Section]) -> Any:
        """One key of a section, for stages that read no other; its default without the section."""
        return getattr(self.section(name, model) if name in self.raw else model(), key)

    def entry(self, catalogue: str, name: str, model: type[S]) -> S:
        """Build one entry of a catalogue, such as `scenes.<name>`."""
        self.reading.keys.add((catalogue, name))
        value, errors = self.check((catalogue, name), model)
        raise_all(errors)
        assert value is not None, f"entry {catalogue}.{name} has neither a value nor an error"
        return value

    def overridden_keys(self, section: str) -> set[str]:
        """Top-level keys of a section that the command line overrides.

        Those of its part of `runtime:` begin with `runtime.`.
        """
        owned = map(_owned, self.overridden)
        return {key for owner, key in owned if owner == section}

    def unread(self, **read: Collection[str]) -> Iterator[str]:
        """Messages about overrides that have no effect on the command.

        Without those of a script's variables, which it gives to all of its commands. Called when
        the command has built all its sections. `read` limits a section to the keys that the
        command, or a process that it starts, reads.
        """
        for keys in sorted(self.overridden):
            built = any(keys[: len(built_keys)] == built_keys for built_keys in self._built)
            section, key = _owned(keys)
            given = command_line.origin(keys) == command_line.COMMAND_LINE
            if given and key not in read.get(section, (key,) if built else ()):
                yield f"{self.where(keys)} has no effect on this command"

    def names(self, catalogue: str) -> list[str]:
        """Names of a catalogue's entries, in file order."""
        self.reading.keys.add((catalogue,))
        return [str(name) for name in (self.raw.get(catalogue) or {})]

    def check(self, keys: tuple[str, ...], model: type[S]) -> tuple[S | None, list[UserError]]:
        """Build the section at `keys`; return it, or None with all errors."""
        node: Any = self.raw
        self._built.add(keys)
        for depth, key in enumerate(keys):
            if not isinstance(node, Mapping) or key not in node:
                return None, [self._missing(keys[: depth + 1], node)]
            node = node[key]
        if not isinstance(node, Mapping):
            error = UserError(
                self.where(keys), repr(node), expected=_LINES, fix=fix_at(self.where(keys))
            )
            return None, [error]
        values = plain(node)
        errors = [self._misplaced(keys + inner) for inner in _misplaced(values)]
        if model.runtime_model() is not None and not errors:
            self._built.add((RUNTIME, *keys))
            values |= self._runtime(keys)
        try:
            return model.model_validate(values) if not errors else None, errors
        except ValidationError as error:
            faults = sorted(error.errors(), key=lambda fault: self._line(_at(keys, fault["loc"])))
            return None, [self._explain(keys, model, fault) for fault in _joined(faults)]

    def _runtime(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """The part of `runtime:` that belongs to a section; its model's defaults without one."""
        node: Any = self.raw.get(RUNTIME)
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return {} if node is None else {RUNTIME: plain(node)}

    def _misplaced(self, keys: tuple[str, ...]) -> UserError:
        place = ".".join((RUNTIME, *keys[:-1]))
        hint = f"it belongs in {place}"
        return UserError(self.where(keys), "unknown key", hint=hint, fix=fix_at(self.where(keys)))

    def check_all(
        self, sections: Mapping[str, type[Section]], catalogues: Mapping[str, type[Section]]
    ) -> tuple[dict[str, Any], list[UserError]]:
        """Build every section and every catalogue entry; return the valid ones and all errors.

        A catalogue becomes a dict of its valid entries. A top-level key that is neither is an
        error.
        """
        known = [*sections, *catalogues, RUNTIME]
        errors = [self._unknown((str(key),), known) for key in self.raw if str(key) not in known]
        owners = [name for name, model in sections.items() if model.runtime_model()]
        runtime = self.raw.get(RUNTIME)
        runtime_keys = [str(key) for key in runtime] if isinstance(runtime, Mapping) else []
        errors += [
            self._unknown((RUNTIME, key), owners) for key in runtime_keys if key not in owners
        ]
        values: dict[str, Any] = {}
        for name, model in sections.items():
            value, faults = self.check((name,), model)
            values |= {} if value is None else {name: value}
            errors += faults
        for name, model in catalogues.items():
            if not isinstance(self.raw.get(name), Mapping):
                got = repr(self.raw[name]) if name in self.raw else "missing"
                entries = "`name:` entries with `key: value` lines"
                errors.append(UserError(self.where((name,)), got, expected=entries, fix=CHECK))
                continue
            errors += self.unnamed(name)
            checked = {
                key: self.check((name, key), model) for key in filter(is_name, self.raw[name])
            }
            values[name] = {key: value for key, (value, _) in checked.items() if value is not None}
            errors += [fault for _, faults in checked.values() for fault in faults]
        return values, errors

    def unnamed(self, catalogue: str) -> Iterator[UserError]:
        """Errors of entries whose key is not a valid name, such as a number."""
        for key in self.raw.get(catalogue) or ():
            if not is_name(key):
                at = self.where((catalogue, key))
                yield UserError(at, f"got {key!r}", expected=name_rule(key), fix=CHECK)

    def where(self, keys: tuple[Any, ...]) -> str:
        """`file:line  dotted.key` of a key, or of its nearest parent that exists.

        The file is the recipe that the value is from, if any. `command line  dotted.key` of a value
        that was overridden there, or `variable NAME  dotted.key` by a script's variable.
        """
        line, dotted = self._line(keys), ".".join(str(key) for key in keys)
        override = self._override_of(keys)
        if override:
            return f"{command_line.origin(override)}  {dotted}"
        for recipe in self.recipes:
            if recipe._states(keys):
                return recipe.where(keys)
        return f"{self.path}:{line}  {dotted}" if line else f"{self.path}  {dotted}"

    def _override_of(self, keys: tuple[Any, ...]) -> tuple[str, ...]:
        """The keys of the override that a value at `keys` is from; empty for none."""
        return next((one for one in self.overridden if keys[: len(one)] == one), ())

    def _states(self, keys: tuple[Any, ...]) -> bool:
        """Whether the file itself has a value, and no section, at `keys`."""
        node: Any = self.raw
        for key in keys:
            if isinstance(node, Mapping):
                if key not in node:
                    return False
                node = node[key]
        return not isinstance(node, Mapping)

    def _line(self, keys: tuple[Any, ...]) -> int:
        line, node = 0, self.raw
        for key in keys:
            try:
                if isinstance(node, CommentedSeq):
                    line = node.lc.item(key)[0] + 1
                elif isinstance(node, CommentedMap):
                    line = node.lc.key(key)[0] + 1
                node = node[key]
            except (KeyError, IndexError, TypeError):
                break
        return line

    def _unknown(self, keys: tuple[str, ...], known: list[str]) -> UserError:
        return UserError(
            self.where(keys),
            "unknown section",
            expected="one of " + ", ".join(known),
            hint=did_you_mean(keys[-1], known),
            fix=fix_at(self.where(keys)),
        )

    def _missing(self, keys: tuple[str, ...], parent: Any) -> UserError:
        known = [str(key) for key in parent] if isinstance(parent, Mapping) else []
        return UserError(
            self.where(keys),
            "missing",
            hint=did_you_mean(keys[-1], known),
            fix=f"add `{keys[-1]}:`",
        )

    def _explain(self, keys: tuple[str, ...], model: type[Section], fault: Any) -> UserError:
        location = _at(keys, fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            return UserError(
                self.where(location),
                "unknown key",
                expected="one of " + ", ".join(known),
                hint=_moved_of(model, location) or did_you_mean(str(fault["loc"][-1]), known),
                fix=fix_at(self.where(location)),
            )
        message, fix = fault["expected"], fix_at(self.where(location))
        if fault["type"] == "missing" and isinstance(location[-1], int):
            got = f"got {plain(fault['input'])!r}"
            expected = f"a list of at least {counted(location[-1] + 1, 'value')}"
            return UserError(self.where(location[:-1]), got, expected=expected, fix=fix)
        if fault["type"] == "missing":
            return UserError(self.where(location), "missing", fix=f"add `{location[-1]}:`")
        if isinstance(fault["input"], Mapping) and fault["type"] == "value_error":
            return UserError(self.where(location), message, fix=fix)
        if fault["type"] == "tuple_type" and self._override_of(location) == location:
            text = f"{'.'.join(map(str, location))}={_bracketed(fault['input'])}"
            fix = f"write {shlex.quote(text)}, with the quotes"
        got = f"got {plain(fault['input'])!r}"
        return UserError(self.where(location), got, expected=message, fix=fix)


def add_override_option(parser: argparse.ArgumentParser) -> None:
    """Add the repeatable options `-S section.key=value` and `--recipe FILE`.

    `Params.read` takes the values of both.
    """
    parser.add_argument(
        "-S",
        "--set-param",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="use this value instead of the one in params.yaml; repeatable",
    )
    parser.add_argument(
        "--set-text",
        dest="overrides",
        action="append",
        type=command_line.literal,
        metavar="KEY=TEXT",
        help="the same for a text, taken literally",
    )
    parser.add_argument(
        "--recipe",
        dest="overrides",
        action="append",
        type=Path,
        metavar="FILE",
        help="use this file's values instead of those in params.yaml, such as studies/full.yaml; "
        "-S goes on top; repeatable",
    )


def fix_at(where: str) -> str:
    """The fix for a bad value at the place that `Params.where` named.

    >>> fix_at("command line  train.lr"), fix_at("params.yaml:41  train.lr") == CHECK
    ('set another value there', True)
    """
    return "set another value there" if command_line.is_override(where) else CHECK


def bad_value(where: str, got: str, *, expected: str = "", hint: str = "") -> UserError:
    """The error of a value at the place that `Params.where` named."""
    return UserError(where, got, expected=expected, hint=hint, fix=fix_at(where))


def no_effect(where: str, reason: str, place: str = "") -> str:
    """The note on a param that does not act, everywhere or in a place like ` in static_train`."""
    return f"note: {where} has no effect{place}: {reason}"


def no_such_key(
    where: object, path: Path | str, raw: Mapping[str, Any], keys: tuple[str, ...], parent: Any
) -> UserError:
    """The error of a key that a section `parent` of the params `raw` lacks."""
    known = [str(key) for key in parent]
    if str(keys[-1]) in known:
        return UserError(
            where, "is a value or a list, not a section", fix=f"set {'.'.join(keys)} itself"
        )
    return UserError(
        where,
        f"{path} has no such key",
        expected=f"one of {', '.join(known)}" if known else "",
        hint=moved(raw, keys) or did_you_mean(str(keys[-1]), known),
        fix="" if known else f"write it in {path}, where {'.'.join(keys[:-1])} is empty",
    )


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint naming the nearest known name, or an empty string.

    >>> did_you_mean("prune_opac", ["prune_opa", "grow_grad2d"])
    'did you mean prune_opa?'
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def moved(raw: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """A hint for a recipe's key that belongs in `runtime:`, or an empty string.

    >>> moved({"train": {}, "runtime": {"train": {"workers": 2}}}, ("train", "workers"))
    'it is runtime.train.workers'
    """
    node: Any = raw.get(RUNTIME)
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return ""
        node = node[key]
    return f"it is {'.'.join((RUNTIME, *keys))}"


def dotted(section: str, key: str) -> str:
    """The full key in params.yaml of a key of a section or of its part of `runtime:`.

    >>> dotted("train", "seed"), dotted("train", "runtime.workers")
    ('train.seed', 'runtime.train.workers')
    """
    before, dot, last = key.partition(".")
    return f"{RUNTIME}.{section}.{last}" if dot and before == RUNTIME else f"{section}.{key}"


def _owned(keys: tuple[str, ...]) -> tuple[str, str]:
    """Section and key of an override; `runtime.workers` of `train` for `runtime.train.workers`."""
    return (keys[1], ".".join((RUNTIME, *keys[2:3]))) if keys[0] == RUNTIME else (keys[0], keys[1])


def _expected(fault: Any) -> str:
    """What is expected, in words; pydantic's own where they are plain."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "tuple_type":
        return f"a list in brackets, such as {_bracketed(fault['input'])}"
    if kind == "too_short":
        return f"a list of at least {counted(context['min_length'], 'value')}"
    if kind == "too_long":
        return f"a list of at most {counted(context['max_length'], 'value')}"
    if kind == "string_too_short":
        return f"a text of at least {counted(context['min_length'], 'character')}"
    if kind == "string_type" and (text := _unquoted(fault["input"])):
        return f"a text, in quotes: {json.dumps(text)}"
    own = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return _WORDS.get(kind, own)


def _unquoted(value: Any) -> str:
    """The text that YAML reads as another value for want of quotes, such as 12 or `source:`.

    >>> _unquoted(12), _unquoted({"source": None}), _unquoted([1])
    ('12', 'source:', '')
    """
    if isinstance(value, Mapping) and list(value.values()) == [None]:
        return f"{next(iter(value))}:"
    if isinstance(value, bool):
        return json.dumps(value)
    return str(value) if isinstance(value, int | float) else ""


def _bracketed(value: Any) -> str:
    """A value as the only one of a list."""
    return f"[{value if isinstance(value, str) else _unquoted(value) or 1}]"


def _joined(faults: Sequence[Any]) -> Iterator[Any]:
    """One fault a key, where a value is of none of the types that the key may have."""
    for _, group in groupby(faults, lambda fault: _at((), fault["loc"])):
        same = list(group)
        yield {**same[-1], "expected": " or ".join(dict.fromkeys(map(_expected, same)))}


def _at(keys: tuple[str, ...], location: tuple[Any, ...]) -> tuple[Any, ...]:
    """The keys in params.yaml at which a section's error occurred."""
    tags = ("function-", "literal[", "constrained-")  # of pydantic, for one of several types
    parts = tuple(part for part in location if not str(part).startswith(tags))
    return (RUNTIME, *keys, *parts[1:]) if parts[:1] == (RUNTIME,) else (*keys, *parts)


def _misplaced(values: Any) -> Iterator[tuple[str, ...]]:
    """Keys named `runtime` inside a section; they belong at the top level."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from (
                ((key,),) if key == RUNTIME else ((key, *inner) for inner in _misplaced(value))
            )


def _moved_of(model: type[Section], keys: tuple[Any, ...]) -> str:
    """As `moved`, by the model, for a params.yaml from before `runtime:`."""
    runtime = model.runtime_model()
    for key in keys[1:-1]:
        fields = {} if runtime is None else runtime.model_fields
        runtime = _section_in(fields[key].annotation) if key in fields else None
    is_there = runtime is not None and keys[-1] in runtime.model_fields
    return f"it is {'.'.join((RUNTIME, *keys))}" if is_there else ""


def plain(node: Any) -> Any:
    """Plain dicts, tuples and scalars from ruamel's round-trip types."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return tuple(plain(value) for value in node)
    if isinstance(node, ScalarBoolean):  # ruamel's type of a boolean with an anchor
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _fields_at(model: type[Section], location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at a location below `model`; indices of tuples are skipped."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            nested = _section_in(model.model_fields[part].annotation)
            assert nested is not None, f"{part} of {model.__name__} holds no section"
            model = nested
    return model.recipe_keys()


def _section_in(annotation: Any) -> type[Section] | None:
    """The section in an annotation such as `tuple[Capture, ...]` or `Strategy | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
