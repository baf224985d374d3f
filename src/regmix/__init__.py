"""Fast adversarial training with RegMix and its family, and an honest measurement of the robustness it buys."""

__version__ = "0.1.0"
