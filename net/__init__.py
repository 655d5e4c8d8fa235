"""Address families and range arithmetic; standard library only, imported by every layer."""
