from .method_tables import (
    MethodComparison as MethodComparison,
    list_retrievals as list_retrievals,
    tabulate_methods as tabulate_methods,
)
from .paper_tables import (
    paper_table as paper_table,
    write_metrics_csv as write_metrics_csv,
    write_table as write_table,
)
from .run_set_up import RecipeDigests as RecipeDigests, lay_out_set_up as lay_out_set_up
from .run_settings import (
    LISTED_KEYS as LISTED_KEYS,
    find_differing_keys as find_differing_keys,
    read_settings as read_settings,
)
from .runs_shown import (
    RunGroup as RunGroup,
    ShownRun as ShownRun,
    choose_best_part as choose_best_part,
    choose_headline as choose_headline,
    find_shown_run as find_shown_run,
    lay_out_tables as lay_out_tables,
    list_headline_values as list_headline_values,
    list_part_rows as list_part_rows,
    list_runs as list_runs,
)
from .tables import (
    ABSENT as ABSENT,
    ResultRow as ResultRow,
    describe_adjustment as describe_adjustment,
    describe_metric as describe_metric,
    describe_sample as describe_sample,
    difference_table as difference_table,
    list_metric_names as list_metric_names,
    make_metric_cell as make_metric_cell,
    make_rows as make_rows,
    published_tables as published_tables,
    tabulate_rows as tabulate_rows,
)
