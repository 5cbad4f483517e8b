"""From exact zeros to a smaller model: couplings, their penalty, their removal."""
