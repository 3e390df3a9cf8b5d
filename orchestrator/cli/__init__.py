"""The command line: one module per verb or group of verbs.

May import everything in the project; heavy imports go inside functions, so that ``orch --help`` stays fast. Start with
``app``: the verbs and how a command line is run.
"""
