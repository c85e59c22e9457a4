"""Cards and prices: every row has its source, and the user's own file is read with care."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from tunedeck.core.errors import ConfigError
from tunedeck.planner.catalogue import GIB, all_gpus, find_gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.prices import Offer, PriceBook, read_prices, with_rates

LISTS = ("market", "market-floor", "reference")


def all_offers() -> list[Offer]:
    return [offer for name in LISTS for offer in read_prices(name).offers]


def test_every_card_has_its_source_and_less_visible_memory_than_its_name_says() -> None:
    for gpu in all_gpus().values():
        assert gpu.source
        assert 0.85 * gpu.memory_gb <= gpu.visible_bytes / GIB < gpu.memory_gb
        assert 0.2 < gpu.utilisation < 0.8
        assert gpu.fp32_flops_per_s <= gpu.tensor_flops_per_s


@pytest.mark.parametrize("name", ["p100", "v100", "t4"])
def test_cards_before_ampere_have_no_bfloat16_and_no_flash_attention(name: str) -> None:
    gpu = find_gpu(name)
    assert not gpu.has_bfloat16
    assert not gpu.has_flash_attention


def test_the_p100_has_no_tensor_cores() -> None:
    assert [gpu.name for gpu in all_gpus().values() if not gpu.tensor_cores and gpu.capability] == ["p100-16gb"]


@pytest.mark.parametrize(("asked", "name"), [("A10", "a10-24gb"), ("rtx_4090", "rtx-4090"), ("Tesla T4", "t4-16gb")])
def test_cards_answer_to_their_short_names(asked: str, name: str) -> None:
    assert find_gpu(asked).name == name


def test_an_unknown_card_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown GPU 'a1000' \(did you mean 'a100'\?\); known: p100"):
        find_gpu("a1000")


def test_every_price_has_a_source_a_currency_and_a_billing_kind() -> None:
    for offer in all_offers():
        assert offer.source
        assert offer.currency in ("CNY", "USD")
        assert offer.billing in ("on-demand", "spot", "community", "floor", "list")
        assert not offer.date or datetime.date.fromisoformat(offer.date).year >= 2023


def test_spot_community_and_floor_prices_lie_below_on_demand_ones() -> None:
    book = read_prices()
    offers = [book.convert(offer, "CNY") for offer in all_offers()]
    for gpu in all_gpus():
        dear = [o.price_per_hour.expected for o in offers if o.gpu.name == gpu and o.billing == "on-demand"]
        cheap = [
            o.price_per_hour.expected
            for o in offers
            if o.gpu.name == gpu and o.billing in ("spot", "community", "floor")
        ]
        assert not (dear and cheap) or max(cheap) <= min(dear)


def test_the_quoted_prices_are_one_named_list() -> None:
    prices = {offer.gpu.name: offer for offer in read_prices("reference").offers}
    a10 = prices["a10-24gb"]
    assert (a10.price_per_hour.low, a10.price_per_hour.high) == (8, 12)
    assert a10.price_per_month is not None
    assert (a10.price_per_month.low, a10.price_per_month.high) == (6000, 9000)


def test_a_price_is_stale_after_ninety_days_or_without_a_date() -> None:
    dated = Offer(find_gpu("a10"), Estimate.exactly(9.74), None, "CNY", "list", "2026-09-24", "a test", "test")
    assert not dated.is_stale(datetime.date(2026, 12, 23))
    assert dated.is_stale(datetime.date(2026, 12, 24))
    assert replace(dated, date="").is_stale(datetime.date(2026, 9, 24))


def test_running_all_day_takes_the_monthly_price_where_it_is_lower() -> None:
    hourly = Offer(find_gpu("a10"), Estimate.exactly(6.0), None, "CNY", "list", "", "a test", "test")
    assert hourly.per_month().expected == 6 * 730
    assert replace(hourly, price_per_month=Estimate.exactly(4000.0)).per_month().expected == 4000
    assert replace(hourly, price_per_month=Estimate.exactly(5000.0)).per_month().expected == 6 * 730


def test_a_card_that_the_list_does_not_price_is_looked_up_in_the_others() -> None:
    assert read_prices("market").offers_of(find_gpu("3090"))[0].list_name in ("market-floor", "reference")


def own(tmp_path: Path, text: str) -> PriceBook:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return read_prices("market", path)


def test_the_users_own_file_replaces_the_prices_of_its_cards(tmp_path: Path) -> None:
    book = own(
        tmp_path, '[[price]]\ngpu = "a10"\nprice = 5\ncurrency = "CNY"\n[[rate]]\nfrom = "EUR"\nto = "CNY"\nvalue = 8\n'
    )
    mine = book.offers_of(find_gpu("a10"))
    assert [offer.price_per_hour.expected for offer in mine] == [5]
    assert mine[0].billing == "own"
    assert len(book.offers_of(find_gpu("t4"))) == 1
    assert book.convert(mine[0], "EUR").price_per_hour.expected == pytest.approx(5 / 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[[price]]\ngpu = "a10"\nprice = 5\ncurrency = "CNY"\n\n[[price]]\ngpu = "a10"\n',
            "line 6: the key 'currency' is missing",
        ),
        ('[[price]]\ngpu = "a11"\nprice = 5\ncurrency = "CNY"', r"line 1: unknown GPU 'a11' \(did you mean"),
        ('[[price]]\ngpu = "a10"\nprice = -5\ncurrency = "CNY"', "line 1: price must be a number above 0, got -5"),
        ('[[price]]\ngpu = "a10"\nprice = "5"\ncurrency = "CNY"', "price must be a number above 0, got '5'"),
        ('[[price]]\ngpu = "a10"\nprice = 5\ncurrency = "yuan"', "currency must be three capital letters such as CNY"),
        ('[[price]]\ngpu = "a10"\nprice = 5\ncurrency = "CNY"\nbilling = "cheap"', "billing must be one of on-demand"),
        ('[[price]]\ngpu = "a10"\nprice = 5\ncurrency = "CNY"\ndate = "2026-13-01"', "line 1: .*month"),
        ('[[price]]\ngpu = "a10"\nprize = 5\ncurrency = "CNY"', r"unknown key 'prize' \(did you mean 'price'\?\)"),
        ('[[rate]]\nfrom = "USD"\nto = "CNY"\nvalue = 0', "line 1: value must be a number above 0"),
        ("[[prices]]\n", "unknown table 'prices'; allowed"),
        ("gpu =", "is not TOML"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own(tmp_path, text)


def test_a_missing_price_file_and_an_unknown_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the price file"):
        read_prices("market", tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"no price list 'markt' \(did you mean 'market'\?\)"):
        read_prices("markt")


def test_rates_of_exchange_are_inputs() -> None:
    book = with_rates(read_prices(), ["usd=7.25"], "CNY")
    assert book.rate("USD", "CNY") == 7.25
    assert book.rate("CNY", "USD") == pytest.approx(1 / 7.25)
    with pytest.raises(ConfigError, match="no rate from USD to EUR"):
        book.rate("USD", "EUR")
    with pytest.raises(ConfigError, match="--exchange-rate takes CURRENCY=VALUE"):
        with_rates(read_prices(), ["dollar=7"], "CNY")
