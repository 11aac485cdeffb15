"""The tests of the asynchronous client that the blocking one has to pass, too."""

from tests import silence, test_client, test_discovery, test_inputs, test_outcomes, test_secrets_in_frames
from tests.calls import test_stream

MODULES = (test_client, test_discovery, test_inputs, test_outcomes, test_secrets_in_frames, test_stream)

MAKERS = (silence,)
"""Where else clients are made for them."""

NOT_FOR_BLOCKING_CALLS = {
    # A blocking call is cancelled by Ctrl-C alone.
    "test_cancelling_a_call_leaves_nothing_behind",
    "test_a_cancelled_call_holds_neither_key_nor_text_in_the_frames_that_sent_them",
    # They look at the tasks and the iterations of the test's own loop.
    "test_leaving_early_cancels_all_tasks_and_closes_the_source",
    "test_a_source_that_never_suspends_does_not_block_the_loop",
    # They share requests by the order of tasks in a loop, which threads do not have.
    "test_requests_are_split_by_what_the_service_says_after_one_look_up",
    # A blocking stream pulls its source while a batch is waited for, and some items at a time.
    "test_a_source_is_never_read_further_ahead_than_the_window",
    "test_reading_stops_at_the_window_while_the_service_is_slow",
    "test_a_slow_request_does_not_delay_others_in_an_unordered_stream",
    "test_an_exception_of_progress_is_raised_even_if_nobody_asks_for_a_batch",
    "test_a_stream_can_be_left_during_a_request_after_there_was_none",
    "test_an_error_of_the_source_comes_after_that_of_the_job",
    "test_an_error_of_the_job_comes_after_everything_that_was_embedded",
    "test_the_deadline_of_a_stream_delivers_what_was_embedded",
    "test_closing_the_client_ends_a_stream_after_the_embedded_batches",
    # Their clocks are set by a test that lets its loop run meanwhile.
    "test_a_slow_async_source_does_not_wait_for_a_full_request",
    "test_a_slow_async_source_is_not_read_further_ahead_than_the_window_either",
    "test_max_delay_counts_from_the_oldest_item_of_a_slow_source",
    "test_max_delay_counts_anew_after_a_full_request",
    "test_max_delay_counts_for_an_item_that_a_full_request_had_no_room_for",
    # The blocking stream has a repr of its own.
    "test_reprs_hold_no_texts",
}
