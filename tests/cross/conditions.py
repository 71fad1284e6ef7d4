"""The columns of the table."""

from tests.cross import several_outputs, single_output

CONDITIONS = [*single_output.CONDITIONS, *several_outputs.CONDITIONS]
