"""Tables of mixtures and losses: both layouts, both formats, and what is refused, with places."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longctx.errors import RecipeError
from longctx.mixture.amounts import aligned, amounts_of_run, read_amounts
from longctx.mixture.tables import (
    enough_runs,
    join,
    mixtures_csv,
    read_losses,
    read_mixtures,
    same_sources,
)

MIXTURES = b"mixture_id,web,books\na,0.5,0.5\nb,0.25,0.75\nc,1,0\n"
LONG = (
    b"mixture_id,model_size,tokens,seed,target,loss\n"
    b"a,10,1e9,1,web,3.0\na,10,1e9,2,web,3.2\nb,10,1e9,1,web,3.5\nc,10,1e9,1,web,\n"
)


def test_shares_are_read_and_written_again() -> None:
    found = read_mixtures(MIXTURES, "m.csv")
    assert (found.ids, found.sources) == (("a", "b", "c"), ("web", "books"))
    again = read_mixtures(mixtures_csv(found.ids, found.sources, found.shares).encode(), "again")
    assert (again.shares == found.shares).all()


def test_the_wide_layout_of_regmix() -> None:
    mixtures = read_mixtures(
        b"index,train_the_pile_arxiv,train_the_pile_pile_cc\n1,.3,.7\n2,.6,.401\n", "m.csv"
    )
    assert (mixtures.ids, mixtures.sources) == (("1", "2"), ("arxiv", "pile_cc"))
    losses = read_losses(b"index,metric/the_pile_pile_cc_val_loss\n2,4.5\n1,5\n", "l.csv")
    runs = join(mixtures, losses)
    assert runs.targets == ("pile_cc",)
    assert runs.Y[:, 0].tolist() == [5, 4.5]
    assert runs.X[1].tolist() == [0.6, 0.401]  # as released, not scaled to 1


def test_seeds_are_averaged_and_missing_runs_listed() -> None:
    losses = read_losses(LONG, "l.csv")
    assert losses.loss[:2, 0] == pytest.approx([3.1, 3.5])
    assert losses.sd[0, 0] == pytest.approx(np.std([3, 3.2], ddof=1))
    assert np.isnan(losses.sd[1, 0])
    runs = join(read_mixtures(MIXTURES, "m.csv"), losses)
    assert (runs.ids, runs.missing) == (("a", "b"), ("c",))
    assert "losses closer than 0.2828 are ties" in runs.notes[0]


def test_parquet_is_read_like_csv_and_places_are_rows() -> None:
    def stored(**columns: object) -> bytes:
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file)
        return file.getvalue()

    found = read_mixtures(stored(mixture_id=[1, 2], web=[0.5, 1.0], books=[0.5, 0.0]), "m.parquet")
    assert (found.ids, found.shares[1].tolist()) == (("1", "2"), [1, 0])
    with pytest.raises(RecipeError, match=r"m\.parquet, row 2: the shares of mixture '2' sum"):
        read_mixtures(stored(mixture_id=[1, 2], web=[0.5, 1.0], books=[0.5, 0.5]), "m.parquet")
    with pytest.raises(RecipeError, match="row 1, column loss"):
        read_losses(stored(mixture_id=["a"], target=["web"], loss=[float("nan")]), "l.parquet")
    with pytest.raises(RecipeError, match="not a readable Parquet table"):
        read_mixtures(b"PAR1 and nothing else PAR1", "m.parquet")


def test_several_settings_are_chosen_from() -> None:
    both = LONG + b"a,20,1e9,1,web,2.5\n"
    with pytest.raises(RecipeError, match=r"`model_size` holds 10, 20.*\n.*--model-size"):
        read_losses(both, "l.csv")
    assert read_losses(both, "l.csv", model_size=20).loss.tolist() == [[2.5]]
    with pytest.raises(RecipeError, match="no run has the model_size 30; there are 10, 20"):
        read_losses(both, "l.csv", model_size=30)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no rows"),
        (b"mixture_id,web\n", "no rows"),
        (b"mixture,web\na,1\n", "no column `mixture_id`"),
        (b"mixture_id\na\n", "no columns of shares"),
        (b"mixture_id,web,books\na,.5,.5\nb,.7,.4\n", "line 3: the shares of mixture 'b' sum to"),
        (b"mixture_id,web,books\na,.5,x\n", "line 2, column books: expected a share from 0 to 1"),
        (b"mixture_id,web,books\na,1.2,-.2\n", "line 2, column web"),
        (b"mixture_id,web,books\na,.5,nan\n", "found 'nan'"),
        (b"mixture_id,web,books\na,.5,\n", "found nothing"),
        (b"mixture_id,web\na,1\na,1\n", "line 3, column mixture_id: mixture 'a' stands twice"),
        (b"mixture_id,web,books\na,1\n", "line 2: 2 cells, expected 3"),
        (b"mixture_id,web,web\na,.5,.5\n", "column 3 is called 'web'"),
        (b"mixture_id,web\n\xff,1\n", "not UTF-8"),
    ],
)
def test_what_is_no_table_of_mixtures(data: bytes, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_mixtures(data, "m.csv")
    assert said in str(error.value)
    assert str(error.value).startswith("m.csv")
    assert error.value.remedy


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"mixture_id,target,loss\na,web,nan\n", "line 2, column loss: expected a loss above 0"),
        (b"mixture_id,target,loss\na,web,inf\n", "found 'inf'"),
        (b"mixture_id,target,loss\na,web,0\n", "the loss is 0"),
        (b"mixture_id,target,loss\na,web,1\na,web,2\n", "line 3, column mixture_id: the run of"),
        (b"mixture_id,web\na,1\na,2\n", "mixture 'a' stands twice"),
        (b"mixture_id,web\na,-1\n", "line 2, column web"),
    ],
)
def test_what_is_no_table_of_losses(data: bytes, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_losses(data, "l.csv")
    assert said in str(error.value)


def test_what_does_not_join() -> None:
    mixtures = read_mixtures(MIXTURES, "m.csv")
    with pytest.raises(RecipeError, match=r"l\.csv: mixture 'x' is not in m\.csv"):
        join(mixtures, read_losses(b"mixture_id,web\nx,1\n", "l.csv"))
    measured = read_losses(b"mixture_id,web\na,2\nb,2\nc,2\n", "l.csv")
    with pytest.raises(RecipeError, match="every run has the same loss 2 for target 'web'"):
        join(mixtures, measured)
    with pytest.raises(RecipeError, match="no target 'wbe'; did you mean 'web'"):
        join(mixtures, measured, ["wbe"])
    with pytest.raises(RecipeError, match="no mixture has a loss"):
        join(mixtures, read_losses(b"mixture_id,web\na,\n", "l.csv"))


def test_repeated_shares_are_noted() -> None:
    mixtures = read_mixtures(b"mixture_id,web,books\na,.5,.5\nb,.5,.5\nc,1,0\n", "m.csv")
    runs = join(mixtures, read_losses(b"mixture_id,web\na,1\nb,2\nc,3\n", "l.csv"))
    assert "'b' those of 'a'" in runs.notes[0]


def test_fewer_runs_than_unknowns() -> None:
    mixtures = read_mixtures(MIXTURES, "m.csv")
    runs = join(mixtures, read_losses(b"mixture_id,web\na,1\nb,2\nc,3\n", "l.csv"))
    with pytest.raises(RecipeError, match="3 runs with a loss are too few for 2 sources"):
        enough_runs(runs)


def test_other_tables_need_the_same_sources() -> None:
    runs = join(
        read_mixtures(MIXTURES, "m.csv"), read_losses(b"mixture_id,web\na,1\nb,2\n", "l.csv")
    )
    turned = same_sources(runs, read_mixtures(b"mixture_id,books,web\nx,.1,.9\n", "t.csv"))
    assert turned.shares.tolist() == [[0.9, 0.1]]
    with pytest.raises(RecipeError, match="of the fit: it lacks 'books'; only it has 'code'"):
        same_sources(runs, read_mixtures(b"mixture_id,code,web\nx,.1,.9\n", "t.csv"))


def test_amounts_of_sources() -> None:
    found = read_amounts(b"source,tokens\nweb,1e9\nbooks,5\n", "a.csv", "tokens")
    assert aligned(found, ["books", "web"], "a.csv").tolist() == [5, 1e9]
    with pytest.raises(RecipeError, match="'bokks' of the mixtures is not there; did you mean"):
        aligned(found, ["bokks"], "a.csv")
    with pytest.raises(RecipeError, match="no column `tokens`"):
        read_amounts(b"source,share\nweb,1\n", "a.csv", "tokens")
    with pytest.raises(RecipeError, match="line 3, column source: source 'web' stands twice"):
        read_amounts(b"source,tokens\nweb,1\nweb,2\n", "a.csv", "tokens")


def test_amounts_of_a_run_are_those_before_mixing_and_packing() -> None:
    def stage(op: str, tokens: int) -> dict[str, object]:
        return {"op": op, "summary": {"by_source": {"web": [3, tokens]}}}

    stages = [stage("read", 0), stage("dedup.exact", 70), stage("mix.weights", 9), stage("pack", 8)]
    assert amounts_of_run({"stages": stages}, "run.json") == {"web": 70}
    with pytest.raises(RecipeError, match="counted no tokens by source"):
        amounts_of_run({"stages": stages[:1]}, "run.json")
