"""The interval over users and seeds against statsmodels' mixed model with crossed effects of seed and user."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from harness.analysis.statistics import compare
from harness.analysis.two_levels import two_level_interval

SEEDS, USERS = 5, 24


def drawn(number, seed_sd=0.5, user_sd=0.6):
    """(S, U) differences with an effect of the seed, of the user, and of both."""
    rng = np.random.default_rng(number)
    return (
        0.3
        + rng.normal(scale=seed_sd, size=(SEEDS, 1))
        + rng.normal(scale=user_sd, size=(1, USERS))
        + rng.normal(size=(SEEDS, USERS))
    )


def mixed_model(d):
    """statsmodels' REML fit of d = mean + seed + user + residual: mean, its error, variances of seeds and users."""
    frame = pd.DataFrame(d).melt(ignore_index=False, var_name="user", value_name="d").rename_axis("seed").reset_index()
    effects = {"seed": "0 + C(seed)", "user": "0 + C(user)"}
    model = sm.MixedLM.from_formula("d ~ 1", frame, groups=np.ones(len(frame)), vc_formula=effects)
    fit = model.fit(reml=True)
    return (
        float(fit.fe_params.iloc[0]),
        float(fit.bse_fe.iloc[0]),
        dict(zip(model.exog_vc.names, fit.vcomp, strict=True)),
    )


@pytest.mark.parametrize("number", range(3))
def test_mean_and_error_are_the_mixed_models(number):
    d = drawn(number)
    mean, error, variances = mixed_model(d)
    assert min(variances.values()) > 0.01  # else REML stops at 0, and ours at the paired t-test
    found = two_level_interval(d)
    assert found.difference == pytest.approx(mean)
    assert found.standard_error == pytest.approx(error, rel=2e-3)


@pytest.mark.parametrize("number", range(3))
def test_the_interval_of_a_verdict_is_the_mixed_models_with_an_approximate_t(number):
    d = drawn(number)
    mean, error, variances = mixed_model(d)
    c = compare(d.mean(axis=1), np.zeros(SEEDS), of_users=True, users=d)
    low, high = c.interval_users
    assert (low + high) / 2 == pytest.approx(mean)
    # Between the quantiles of t with the degrees of freedom of users and of seeds, by the share of either.
    over_seeds, over_users = stats.t.isf(0.025, [SEEDS - 1, USERS - 1])
    assert over_users < (high - low) / 2 / error < over_seeds * 1.002
    residual = error**2 - variances["seed"] / SEEDS - variances["user"] / USERS
    share = (variances["seed"] / SEEDS + residual) / error**2
    assert (high - low) / 2 == pytest.approx((share * over_seeds + (1 - share) * over_users) * error, rel=5e-3)
    assert (c.p_users <= 0.05) == (low > 0 or high < 0)
