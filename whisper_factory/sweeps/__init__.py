"""Sweeps: many compositions from one command, one table and one report at their end.

Hydra's sweepers and launchers do the work; here is what they lack. Every job, in whatever process or on whatever
host it runs, leaves a row in the sweep's directory; the process that started the sweep reads them when all are done.
"""
