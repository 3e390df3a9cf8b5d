"""The forms of the winner besides the ensemble of its retrained networks, and the choice among them on validation.

May import what ``sweep`` may, and its modules up to ``refit``. Start with ``choice``.
"""
