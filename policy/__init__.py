"""The policy pack: what every stack of this project has to keep, whatever its settings and the program say.

`facts.py` knows resources, `checks.py` and `costs.py` judge them and know no Pulumi; `wire.py` and `pack.py`
are how the engine calls them.
"""
