"""Naive Bayes context extension: its formula, its identities, and what its order means."""

import pytest
import torch

from impls.context import NBCE

LN = torch.tensor(
    [[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64
).log()  # two contexts: the first is surer
NULL = torch.tensor([0.25, 0.5, 0.2, 0.05], dtype=torch.float64).log()


def row(ids, start, end):
    return ids()[0, start:end]


def plain(model, *parts):
    """The model's own log-probabilities of what follows each token of the last part."""
    tokens = torch.cat(parts)
    return model(tokens[None])[0, -len(parts[-1]) :].float().log_softmax(-1)


def test_the_surest_context_is_contrasted_with_none():
    joint, chosen = NBCE(beta=0.5, top_p=1.0).combine(LN, NULL)
    assert chosen == 0
    weights = torch.tensor([0.7, 0.1, 0.1, 0.1]).double() ** 1.5 / NULL.exp() ** 0.5
    torch.testing.assert_close(joint.exp(), weights / weights.sum())


def test_predictions_are_cut_and_what_is_cut_without_context_is_not_contrasted():
    # 0.95 keeps all but the last token without context, and all of the first context.
    joint, _ = NBCE(beta=0.5, top_p=0.95).combine(LN[:1], NULL)
    weights = torch.tensor([0.7, 0.1, 0.1, 0.1]).double()
    weights[:3] = weights[:3] ** 1.5 / NULL[:3].exp() ** 0.5
    torch.testing.assert_close(joint.exp(), weights / weights.sum())
    # 0.85 keeps three of four tokens of the second context: 0.4 + 0.3 < 0.85 <= 0.9.
    joint, _ = NBCE(beta=0.0, top_p=0.85).combine(LN[1:], NULL)
    torch.testing.assert_close(joint.exp(), torch.tensor([4, 3, 2, 0]).double() / 9)


@pytest.mark.parametrize(("eta", "expected"), [(0.0, 0), (0.1, 0), (0.5, 1)])
def test_the_context_chosen_before_is_left_only_for_one_surer_by_eta(eta, expected):
    # Entropies 0.94 and 1.28: 0.34 apart.
    _, chosen = NBCE(eta=eta, top_p=1.0).combine(LN, NULL, torch.tensor(1))
    assert chosen == expected


@torch.no_grad()
@pytest.mark.parametrize("beta", [0.0, 0.25, 3.0])
@pytest.mark.parametrize("n", [1, 3])
def test_empty_contexts_give_the_plain_model(decoder, ids, beta, n):
    model, prompt, continuation = decoder(), row(ids, 0, 4), row(ids, 4, 12)
    empty = [prompt[:0]] * n
    found = NBCE(beta=beta).log_probabilities(model, empty, prompt, continuation)
    read = torch.cat((prompt, continuation[:-1]))
    # (1 + beta) x - beta x, each to float32: x up to 20, of which 2 beta + 1 roundings.
    bound = (2 * beta + 2) * 20 * 2**-22
    torch.testing.assert_close(found, plain(model, read)[3:], atol=bound, rtol=0)


@torch.no_grad()
def test_one_context_is_the_plain_model_only_without_contrast(decoder, ids):
    model, context, prompt, continuation = (
        decoder(),
        *(row(ids, *at) for at in ((0, 7), (7, 9), (9, 14))),
    )
    expected = plain(model, context, torch.cat((prompt, continuation[:-1])))[1:]
    without = NBCE(beta=0.0).log_probabilities(model, [context], prompt, continuation)
    torch.testing.assert_close(without, expected, atol=1e-5, rtol=0)
    contrasted = NBCE().log_probabilities(model, [context], prompt, continuation)
    assert (contrasted - expected).abs().max() > 0.1


@torch.no_grad()
def test_the_order_of_contexts_means_nothing(decoder, ids):
    model, prompt, continuation = decoder(), row(ids, 0, 3), row(ids, 3, 9)
    contexts = [row(ids, 9, 12), row(ids, 12, 25), row(ids, 25, 30), prompt[:0]]
    found = NBCE().log_probabilities(model, contexts, prompt, continuation)
    moved = NBCE().log_probabilities(model, contexts[::-1], prompt, continuation)
    torch.testing.assert_close(moved, found, atol=1e-5, rtol=0)


@torch.no_grad()
def test_generation_takes_the_likeliest_token_of_each_joint_prediction(decoder, ids):
    model, prompt, contexts = decoder(), row(ids, 0, 3), [row(ids, 3, 10), row(ids, 10, 22)]
    rule = NBCE(top_p=1.0)
    told = rule.generate(model, contexts, prompt, 6)
    logp = rule.log_probabilities(model, contexts, prompt, told)
    assert torch.equal(told, logp.argmax(-1))


@torch.no_grad()
def test_drawn_tokens_repeat_with_the_generator(decoder, ids):
    model, prompt, contexts = decoder(), row(ids, 0, 3), [row(ids, 3, 10)]
    drawn = [
        NBCE().generate(model, contexts, prompt, 8, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"beta": -0.5}, "must not be negative, got -0.5, 0.1"),
        ({"eta": -1.0}, "must not be negative, got 0.25, -1.0"),
    ],
)
def test_bad_fields_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NBCE(**options)
