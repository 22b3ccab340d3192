"""Facts read from source are those of the imported classes."""

import inspect

import pytest

from balbench.benchmarks.class_source import class_source
from balbench.harness import registry


@pytest.mark.parametrize("kind", registry.KINDS)
def test_facts_from_source_equal_those_of_the_classes(kind):
    for name, path in registry.BUILT_IN[kind].items():
        module, _, attribute = path.partition(":")
        source, component = class_source(module, attribute), registry.load(kind, name)
        assert source is not None, name
        assert source.docstring == inspect.cleandoc(component.__doc__ or "")
        for fact in ("family", "source", "cost") if kind == "policies" else ():
            assert source.constant(fact) == getattr(component, fact), (name, fact)


def test_unknown_names_have_no_source():
    assert class_source("balbench.harness.registry", "Nothing") is None
    assert class_source("balbench.harness.policies.random", "ClassVar") is None
