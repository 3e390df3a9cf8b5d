"""Figures and contact sheets as PNG files, drawn from plain tables with Matplotlib.

May import ``trainers.files`` and ``trainers.images``; of the orchestrator only ``api``, ``ledger`` and ``evaluation``.
Imported only by ``orchestrator.commands.data`` and ``orchestrator.sweep.pictures``, inside functions. Start with
``figures``.
"""
