"""Window attention: which pairs it reads at which distance, and what its cache holds."""

import pytest
import torch

from impls.context import NTKAware, WindowAttention

T = 20


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (5, 0), (5, 3), (5, T), (T, 0)])
def test_pairs_in_the_window_and_the_sinks_are_read(vectors, scores, pairwise, rope, window, sinks):
    q, k = vectors(T)
    rule = WindowAttention(window=window, sinks=sinks)
    i, j = torch.arange(T)[:, None], torch.arange(T)
    near = i - j < window
    distance = torch.where(near, i - j, i.clamp(max=sinks + window - 1) - j)
    expected = pairwise(q, k, distance, rope.rule(1)[0]).masked_fill(
        ~near & (j >= sinks), float("-inf")
    )
    found = scores(rule.extended(rope, train_len=8, target_len=T), q, k)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@torch.no_grad()
def test_texts_no_longer_than_the_window_are_read_in_full(decoder, ids):
    model = decoder()
    plain = model(ids(32))
    with WindowAttention(window=32).applied(model, target_len=48):
        torch.testing.assert_close(model(ids(32)), plain, atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("window", "sinks", "held"), [(None, 0, 16), (None, 4, 16), (5, 2, 7)])
def test_the_cache_holds_the_window_and_the_sinks_however_long_the_text(
    decoder, ids, window, sinks, held
):
    model = decoder()
    with WindowAttention(window=window, sinks=sinks).applied(model, target_len=48):
        state = model.init_state(2, 48)
        for token in ids().split(1, dim=1):
            model(token, state=state)
    token_bytes = 2 * 2 * 4 * 8 * 8  # keys and values, two rows, four heads, width 8, float64
    # The newest token is appended when it comes, so one place of the window is free before that.
    assert [layer.nbytes for layer in state.layers] == [(held - 1) * token_bytes] * 2


@torch.no_grad()
def test_it_goes_on_top_of_changed_frequencies(decoder, ids):
    model = decoder()
    with NTKAware().applied(model, target_len=48):
        plain = model(ids(10))
        with WindowAttention(window=10).applied(model, target_len=48):
            torch.testing.assert_close(model(ids(10)), plain, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 0}, "at least 1 or None, got 0"), ({"sinks": -1}, "not be negative, got -1")],
)
def test_bad_fields_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WindowAttention(**options)
