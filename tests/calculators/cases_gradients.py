"""Calculators of gradient products, for the contract suite."""

from deel_dualview import FactoredProjection, GradCos, GradDot, TracIn, Trak

CASES = {
    "GradDot": GradDot,
    "GradDot, all weights": lambda model, train, **settings: GradDot(model, train, weights="all", **settings),
    "GradDot, Adam": lambda model, train, **settings: GradDot(
        model, train, preconditioner="adam", **settings
    ),
    "GradCos": GradCos,
    "GradCos, Adam, all weights": lambda model, train, **settings: GradCos(
        model, train, preconditioner="adam", weights="all", **settings
    ),
    "SIM-rp": lambda model, train, **settings: GradCos(
        model,
        train,
        normalize="train",
        function="logit",
        weights="all",
        projection=FactoredProjection(16),
        **settings,
    ),
    "TracIn": lambda model, train, **settings: TracIn(model, train, learning_rates=0.1, **settings),
    "Trak": Trak,
}
