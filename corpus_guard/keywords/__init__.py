"""Keywords: libraries people keep, engines that find them, rules that say what a hit means."""
