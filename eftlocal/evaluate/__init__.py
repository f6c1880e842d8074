"""Studies of what fusing does: their data, their judges, their statistics, and one report.

A study plans pieces of work whose results depend on nothing but their content, and writes a section
of the report from the results. Results are kept by content, so that a study which was stopped goes
on where it was.
"""
