"""Counts the multiply-adds that a program really executes; loops and branches run as data say."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core


def multiply_adds(function, *arguments) -> int:
    """Run `function` and add up its matrix products; the program counts them while it runs."""
    return counting(function, *arguments)(*arguments)[0]


def counting(function, *arguments):
    """`function`, compiled once for `arguments` and others of their shapes, to be asked for both.

    It returns the multiply-adds of its matrix products, counted while it runs, and its results.
    """
    closed, structure = jax.make_jaxpr(function, return_shape=True)(*arguments)
    run = jax.jit(lambda *leaves: _run(closed.jaxpr, closed.consts, leaves))

    def counted(*arguments):
        count, results = run(*jax.tree.leaves(arguments))
        return int(count), jax.tree.unflatten(jax.tree.structure(structure), results)

    return counted


def _run(jaxpr, consts, arguments):
    """Multiply-adds of a jaxpr, and its results."""
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    total = jnp.int32(0)

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        count, results = _equation(equation, [read(atom) for atom in equation.invars])
        total = total + count
        values |= dict(zip(equation.outvars, results, strict=True))
    return total, [read(atom) for atom in jaxpr.outvars]


def _equation(equation, inputs):
    name, params = equation.primitive.name, equation.params
    if name == "while":
        return _loop(params, inputs)
    if name == "scan":
        return _scan(equation, inputs)
    if name == "cond":
        return _branch(params, inputs)
    inner = params.get("jaxpr") or params.get("call_jaxpr")
    if inner is not None:
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", []), inputs)
    results = equation.primitive.bind(*inputs, **params)
    results = results if equation.primitive.multiple_results else [results]
    return _products(equation) if name == "dot_general" else 0, results


def _products(equation) -> int:
    (contracted, _), (batched, _) = equation.params["dimension_numbers"]
    shapes = [atom.aval.shape for atom in equation.invars]
    # A product with a vector is a masked sum in other words (attention's normaliser).
    if min(len(shape) - len(contracted) - len(batched) for shape in shapes) <= 0:
        return 0
    return equation.outvars[0].aval.size * math.prod(shapes[0][axis] for axis in contracted)


def _branch(params, inputs):
    branches = [
        functools.partial(_counted, branch.jaxpr, branch.consts) for branch in params["branches"]
    ]
    return lax.switch(inputs[0], branches, inputs[1:])


def _counted(jaxpr, consts, inputs):
    count, results = _run(jaxpr, consts, inputs)
    return jnp.int32(count), results


def _loop(params, inputs):
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    run_test = functools.partial(_run, test.jaxpr, test.consts)
    run_body = functools.partial(_run, body.jaxpr, body.consts)

    def goes_on(carry):
        return run_test([*inputs[:first], *carry[1]])[1][0]

    def turn(carry):
        count, state = run_body([*inputs[first:second], *carry[1]])
        return carry[0] + count, state

    return lax.while_loop(goes_on, turn, (jnp.int32(0), inputs[second:]))


def _scan(equation, inputs):
    body, params = equation.params["jaxpr"], equation.params
    # What is stacked has an axis more outside than inside the body; JAX's own names for the
    # numbers of constants, carries and rows differ between its versions.
    carries = sum(
        outside.aval.ndim == inside.aval.ndim
        for outside, inside in zip(equation.outvars, body.jaxpr.outvars, strict=True)
    )
    rows = sum(
        outside.aval.ndim > inside.aval.ndim
        for outside, inside in zip(equation.invars, body.jaxpr.invars, strict=True)
    )
    first, second = len(inputs) - rows - carries, len(inputs) - rows

    def turn(carry, row):
        count, results = _run(body.jaxpr, body.consts, [*inputs[:first], *carry[1], *row])
        return (carry[0] + count, results[:carries]), results[carries:]

    start = (jnp.int32(0), inputs[first:second])
    (count, state), stacked = lax.scan(turn, start, inputs[second:], params["length"])
    return count, [*state, *stacked]
