"""The popularity dial: what lists gain in coverage and novelty, and lose in accuracy.

MovieLens 100K, ids only, a random fifth of the rows for testing. FMRegressor learns from ratings,
and rows of 4 stars or more are relevant; both FMRankers learn from which films were rated, and all
rows are relevant. Each model is trained once: the dial is turned when it is asked.
"""

from __future__ import annotations

from _report import environment, parser, print_environment, print_table, write_json

import fmknn

MODELS = {
    "FMRegressor": fmknn.FMRegressor(random_state=0),
    "FMRanker": fmknn.FMRanker(random_state=0),
    'FMRanker(loss="bpr")': fmknn.FMRanker(loss="bpr", random_state=0),
}
DIAL = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
METRICS = ("ndcg@10", "coverage@10", "novelty@10")


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = parser(__doc__).parse_args()
    facts = environment()
    print_environment(facts)
    train, test = fmknn.splits.random(_ratings(arguments.quick), test=0.2, random_state=0)
    good = 0.0 if arguments.quick else 4.0  # generated values are about 0
    results = []
    for name, estimator in MODELS.items():
        has_values = isinstance(estimator, fmknn.FMRegressor)
        model = fmknn.Recommender(estimator)
        model.fit(train if has_values else train.replace(values=None))
        for popularity in DIAL:
            found = model.evaluate(
                test, METRICS, relevant_from=good if has_values else None, popularity=popularity
            )
            results.append({"model": name, "popularity": popularity, **found.metrics})
    print_table(results)
    write_json(arguments.json, facts, results=results)


def _ratings(quick: bool) -> fmknn.Interactions:
    if quick:
        drawn, _ = fmknn.datasets.make_interactions(
            n_users=200, n_items=100, n_ratings=4000, random_state=0
        )
        return drawn.without_features()
    return fmknn.datasets.load_movielens("100k").without_features()


if __name__ == "__main__":
    main()
