"""The rules of a deployment: what a model's control log means, and what may be appended to it.

Pure. The log is read by ``ledger``, its meaning is ``state.fold``. A command (``commands``) becomes
events or a refusal in ``decisions``; whether the fleet is ready for it is in ``readiness``, what a plan
does next in ``controller``, and how all of it stands, in a word, in ``phase``. A request becomes a
variant in ``routing``.
"""
