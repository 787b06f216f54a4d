"""Counts the multiply-adds that a program really executes, by walking through its jaxpr."""

import math

import jax
import numpy as np
from jax.extend import core


def multiply_adds(function, *arguments) -> int:
    """Run `function` equation by equation, loops included, and add up its matrix products."""
    counter = _Counter()
    closed = jax.make_jaxpr(function)(*arguments)
    counter.run(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
    return counter.total


class _Counter:
    def __init__(self):
        self.total = 0

    def run(self, jaxpr, consts, arguments):
        values = dict(zip(jaxpr.constvars, consts, strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(atom):
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(atom) for atom in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation, inputs):
        name, params = equation.primitive.name, equation.params
        if name == "while":
            return self.loop(params, inputs)
        if name == "scan":
            return self.scan(equation, inputs)
        inner = params.get("jaxpr") or params.get("call_jaxpr")
        if inner is not None:
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", []), inputs)
        assert name != "cond", "this program has branches"
        if name == "dot_general":
            (contracted, _), (batched, _) = params["dimension_numbers"]
            left = np.shape(inputs[0])
            free = [np.ndim(x) - len(contracted) - len(batched) for x in inputs]
            # A product with a vector is a masked sum in other words (attention's normaliser).
            if min(free) > 0:
                size = equation.outvars[0].aval.size
                self.total += size * math.prod(left[axis] for axis in contracted)
        results = equation.primitive.bind(*inputs, **params)
        return results if equation.primitive.multiple_results else [results]

    def loop(self, params, inputs):
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        test_consts, consts, carry = np.split(np.array(range(len(inputs))), split)
        state = [inputs[i] for i in carry]
        while self.run(test.jaxpr, test.consts, [*(inputs[i] for i in test_consts), *state])[0]:
            state = self.run(body.jaxpr, body.consts, [*(inputs[i] for i in consts), *state])
        return state

    def scan(self, equation, inputs):
        body, length = equation.params["jaxpr"], equation.params["length"]
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
        consts, state, stacks = inputs[:first], inputs[first:second], inputs[second:]
        stacked = []
        for turn in range(length):
            row = [array[turn] for array in stacks]
            results = self.run(body.jaxpr, body.consts, [*consts, *state, *row])
            state = results[:carries]
            stacked.append(results[carries:])
        return [*state, *(jax.numpy.stack(column) for column in zip(*stacked, strict=True))]
