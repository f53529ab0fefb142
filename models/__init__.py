"""Models: nn.Modules only."""
