"""Why this film, what is like it, who would like it, and lists with less of what all like.

MovieLens is taken from $FMKNN_DATA or the cache folder, or downloaded.
"""

import fmknn

ratings = fmknn.datasets.load_movielens("100k")  # users have an age, films have genres
train, test = fmknn.splits.random(ratings, test=0.2, random_state=0)
estimator = fmknn.FMRegressor(n_factors=8, n_iter=60, random_state=0)
model = fmknn.Recommender(estimator).fit(train)
films = ratings.item_features


def title(film):
    return films.row(film)["title"]


[[user, [(film, score), *_]]] = model.recommend(196, n=1)
why = model.explain(user, film)
print(f"user {user} may like {title(film)}, score {score:.3f}")
print(why)
print("\nby field, largest first:")
for name, value in sorted(why.by_field().items(), key=lambda part: -abs(part[1]))[:6]:
    print(f"  {value:+.3f}  {name}")
rounding = sum(why.to_dict().values()) - score
print(f"all {len(why)} terms add up to it: {abs(rounding) < 1e-5}")

for what, top in (
    ("films like it", model.similar_items(film, n=3)),
    ("users like this one", model.similar_users(user, n=3)),
    ("users to tell of it", model.users_for_item(film, n=3)),
):
    [[_, best]] = top
    names = [title(id) if "films" in what else str(id) for id, _ in best]
    print(f"{what}: {', '.join(names)}")

print("\nlists of a ranker, the more of their own the less the biases of films count")
taken = train.without_features().replace(values=None)  # that it was rated is what counts
ranker = fmknn.Recommender(fmknn.FMRanker(8, loss="bpr", n_iter=20, random_state=0)).fit(taken)
for popularity in (1.0, 0.6, 0.2):
    metrics = ["ndcg@10", "coverage@10", "novelty@10"]
    found = ranker.evaluate(test, metrics, popularity=popularity)
    told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    print(f"popularity {popularity}: {told}")
