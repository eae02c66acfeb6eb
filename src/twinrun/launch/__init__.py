"""Many runs: processes on this machine, verification, the DVC record."""
