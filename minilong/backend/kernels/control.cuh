// What the norm's kernel decides and the update obeys: a vector of doubles, in the order of `Control` in norm.py.
#pragma once

enum Control { NORM, FACTOR, BAD, STOPPED, TAKEN, LOSS, LOSS_SUM, SMOOTHED };
