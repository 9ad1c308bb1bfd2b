"""Slow and plain references, written from the papers and sharing no code with the package."""

import itertools
import math

import numpy as np
from scipy import optimize, special, stats


def auc(positive, negative):
    """Share of pairs in the right order, ties half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return float(np.mean(pairs)) if pairs else math.nan


def delong_se(positive, negative):
    """DeLong's standard error from the two lists of placements."""
    theta = auc(positive, negative)
    v10 = [np.mean([(p > n) + 0.5 * (p == n) for n in negative]) for p in positive]
    v01 = [np.mean([(p > n) + 0.5 * (p == n) for p in positive]) for n in negative]
    s10 = sum((v - theta) ** 2 for v in v10) / (len(v10) - 1)
    s01 = sum((v - theta) ** 2 for v in v01) / (len(v01) - 1)
    return math.sqrt(s10 / len(v10) + s01 / len(v01))


def strict_pairs(values, held):
    """Pairs with in above out."""
    return sum(a > b for a in values[held] for b in values[~held])


def mann_whitney_tail(n_in, n_out):
    """P(U >= u) for u = 0 ... n_in n_out, by every choice of n_in places."""
    counts = np.zeros(n_in * n_out + 1)
    for chosen in itertools.combinations(range(n_in + n_out), n_in):
        counts[sum(chosen) - n_in * (n_in - 1) // 2] += 1
    return np.cumsum(counts[::-1])[::-1] / counts.sum()


def clustered_variance(scores, held, patient):
    """Obuchowski (1997): variance of the area with clustered records."""
    positive, negative = np.flatnonzero(held), np.flatnonzero(~held)
    m, n = len(positive), len(negative)
    theta = auc(scores[positive], scores[negative])
    placed_positive, placed_negative = {}, {}
    for i in positive:
        v = np.mean((scores[i] > scores[negative]) + 0.5 * (scores[i] == scores[negative]))
        placed_positive.setdefault(patient[i], []).append(v)
    for j in negative:
        v = np.mean((scores[positive] > scores[j]) + 0.5 * (scores[positive] == scores[j]))
        placed_negative.setdefault(patient[j], []).append(v)
    clusters = np.unique(patient)
    total = len(clusters)
    s10 = s01 = s11 = 0.0
    for one in clusters:
        x, y = placed_positive.get(one, []), placed_negative.get(one, [])
        a, b = sum(x) - len(x) * theta, sum(y) - len(y) * theta
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    scale = total / (total - 1)
    return scale * (s10 / m**2 + s01 / n**2 + 2 * s11 / (m * n))


def benjamini_hochberg(p):
    n = len(p)
    rank = {i: r + 1 for r, i in enumerate(sorted(range(n), key=lambda i: p[i]))}
    return np.array(
        [min(1.0, *(p[j] * n / rank[j] for j in range(n) if rank[j] >= rank[i])) for i in range(n)]
    )


def holm(p):
    n = len(p)
    rank = {i: r for r, i in enumerate(sorted(range(n), key=lambda i: p[i]))}
    return np.array(
        [
            min(1.0, max(p[j] * (n - rank[j]) for j in range(n) if rank[j] <= rank[i]))
            for i in range(n)
        ]
    )


def smyth_prior(variances, dof):
    """Prior degrees of freedom and scale by the moments of log variances (Smyth 2004, 6.2)."""
    z = np.log(variances)
    e = z - special.digamma(dof / 2) + np.log(dof / 2)
    excess = np.var(e, ddof=1) - np.mean(special.polygamma(1, dof / 2))
    if excess <= 0:
        return math.inf, math.exp(e.mean())
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e7, xtol=1e-12)
    return 2 * half, math.exp(e.mean() + special.digamma(half) - math.log(half))


def lira(target, references, held, variance="moderated"):
    """Online LiRA of one target by norm.logpdf, a loop over records; one view, one label."""
    n = len(target)
    own = np.array(
        [[np.var(references[side[:, x], x], ddof=1) for x in range(n)] for side in (held, ~held)]
    )
    dof = np.array([held.sum(0) - 1, (~held).sum(0) - 1], dtype=float)
    if variance == "global":
        used = np.repeat((own * dof).sum(1) / dof.sum(1), n).reshape(2, n)
    elif variance == "moderated":
        used = np.empty_like(own)
        for side in range(2):
            d0, s0 = smyth_prior(own[side], dof[side])
            used[side] = (
                s0 if math.isinf(d0) else (d0 * s0 + dof[side] * own[side]) / (d0 + dof[side])
            )
    else:
        used = own
    scores = []
    for x in range(n):
        inside, outside = references[held[:, x], x], references[~held[:, x], x]
        scores.append(
            stats.norm.logpdf(target[x], inside.mean(), math.sqrt(used[0, x]))
            - stats.norm.logpdf(target[x], outside.mean(), math.sqrt(used[1, x]))
        )
    return np.array(scores)


def lira_offline(target, references, held):
    """(s - mean out) / sd out with moderated variances."""
    out = [references[~held[:, x], x] for x in range(len(target))]
    own, dof = np.array([np.var(o, ddof=1) for o in out]), (~held).sum(0) - 1.0
    d0, s0 = smyth_prior(own, dof)
    used = s0 if math.isinf(d0) else (d0 * s0 + dof * own) / (d0 + dof)
    return (target - np.array([o.mean() for o in out])) / np.sqrt(used)


def rmia_fraction(target, references, held, z_target, z_references, gamma=1.0, a=None):
    """Share of the population dominated, by the double loop over x and z."""
    p, q = special.expit(references), special.expit(z_references)
    shares = []
    for x in range(len(target)):
        inside, outside = p[held[:, x], x].mean(), p[~held[:, x], x].mean()
        mean = 0.5 * (inside + outside) if a is None else 0.5 * ((1 + a) * outside + 1 - a)
        ratio = special.expit(target[x]) / mean
        wins = 0
        for z in range(len(z_target)):
            mean_z = q[:, z].mean()
            if a is not None:
                mean_z = 0.5 * ((1 + a) * mean_z + 1 - a)
            wins += ratio / (special.expit(z_target[z]) / mean_z) >= gamma
        shares.append(wins / len(z_target))
    return np.array(shares)


def left_out_pair(held, target, record):
    """The rows that a target leaves out for a record: itself and its partner."""
    inside, outside = np.flatnonzero(held[:, record]), np.flatnonzero(~held[:, record])
    mine, others = (inside, outside) if held[target, record] else (outside, inside)
    return target, int(others[list(mine).index(target) % len(others)])


def patient_tests(signal, membership, patient_index):
    """joint and max areas and p-values of every patient, a loop over patients."""
    n_patients = membership.shape[1]
    rows = []
    for p in range(n_patients):
        held = membership[:, p]
        n_in, n_out = held.sum(), (~held).sum()
        own = signal[:, patient_index == p]
        standard = (own - own.mean(0)) / own.std(0)
        total = standard.sum(1)
        tail = mann_whitney_tail(int(n_in), int(n_out))
        p_joint = tail[strict_pairs(total, held)]
        best = min(tail[strict_pairs(own[:, k], held)] for k in range(own.shape[1]))
        p_max = min(1.0, own.shape[1] * best)
        rows.append(
            {
                "auc_joint": auc(total[held], total[~held]),
                "auc_max": max(auc(o[held], o[~held]) for o in own.T),
                "p_joint": p_joint,
                "p_max": p_max,
                "p_value": p_joint if own.shape[1] == 1 else min(1.0, 2 * min(p_joint, p_max)),
            }
        )
    return rows


def audit(signal, membership, patient_index, fdr=0.05):
    """Areas of records, tests of patients, their list, and LiRA's mean area over targets."""
    held = membership[:, patient_index]
    records = [auc(s[h], s[~h]) for s, h in zip(signal.T, held.T, strict=True)]
    patients = patient_tests(signal, membership, patient_index)
    q = benjamini_hochberg([row["p_value"] for row in patients])
    areas = []
    for t in range(len(signal)):
        scores = np.array([loo_lira(signal, held, t, x) for x in range(signal.shape[1])])
        areas.append(auc(scores[held[t]], scores[~held[t]]))
    return {
        "record_auc": np.array(records),
        "patients": patients,
        "q_value": q,
        "at_risk": q <= fdr,
        "lira_global": float(np.mean(areas)),
    }


def loo_lira(signal, held, target, record):
    """LiRA with one variance a side for all records, pair left out."""
    pooled, means = np.zeros((2, 2)), []
    for x in range(signal.shape[1]):
        keep = np.ones(len(signal), dtype=bool)
        keep[list(left_out_pair(held, target, x))] = False
        for side, chosen in enumerate((keep & held[:, x], keep & ~held[:, x])):
            values = signal[chosen, x]
            pooled[side] += ((values - values.mean()) ** 2).sum(), len(values) - 1
            if x == record:
                means.append(values.mean())
    variances = pooled[:, 0] / pooled[:, 1]
    s = signal[target, record]
    return stats.norm.logpdf(s, means[0], math.sqrt(variances[0])) - stats.norm.logpdf(
        s, means[1], math.sqrt(variances[1])
    )
