"""The rules of a deployment: what a model's control log means, and what may be appended to it.

Pure. The log is read by ``ledger``, its meaning is ``state.fold``, a command becomes events or a
refusal in ``decisions``, and a request becomes a variant in ``routing``.
"""
