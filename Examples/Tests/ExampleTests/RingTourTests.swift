import Testing

struct RingTourTests {
  private let tour = Tool(name: "ring-tour")

  @Test func walksOnceAround() throws {
    let run = try tour.run()
    #expect(run.output.contains("Requests that the back end finds: 3\n  question 1: what divides 91?\n"))
    #expect(run.output.contains("  answer 1: divisible by 7\n"))
    #expect(run.output.contains("unanswered 0; shared req_prod 3 req_event 4 rsp_prod 3 rsp_event 4"))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test func indicesWrap() throws {
    let run = try tour.run("--start-index", "4294967294")
    #expect(run.output.contains("front ring of 256: produced 1 consumed 1 unanswered 0"))
    #expect(run.exitCode == 0)
  }

  @Test func everySlotMayBeUsed() throws {
    let run = try tour.run("--pages", "2", "--requests", "512")
    #expect(run.output.contains("\n  answer 512: "))
    #expect(run.exitCode == 0)
  }

  @Test(arguments: [
    (
      "too-many-requests",
      "the front end moved its request producer to 257, but requests are consumed up to 0 and 256 slots are free"
    ),
    (
      "backwards",
      "the front end moved its request producer to 1, but requests are consumed up to 3 and 253 slots are free"
    ),
    (
      "unasked-response",
      "the back end moved its response producer to 1, but responses are consumed up to 0 and 0 requests are unanswered"
    ),
  ])
  func hostileEndIsRefused(attack: String, violation: String) throws {
    let run = try tour.run("--hostile", attack)
    #expect(run.output.hasSuffix("The ring is refused, and nothing else has happened: \(violation).\n"))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test(arguments: [
    ("--pages", "0", "A ring has from 1 to 16 pages, not 0."),
    ("--pages", "17", "A ring has from 1 to 16 pages, not 17."),
    ("--requests", "0", "A ring of one page takes from 1 to 256 requests at once, not 0."),
    ("--requests", "257", "A ring of one page takes from 1 to 256 requests at once, not 257."),
    ("--pages", "one", "The value 'one' is invalid for '--pages <count>'"),
    ("--start-index", "4294967296", "The value '4294967296' is invalid for '--start-index <index>'"),
    ("--start-index", "-1", "Missing value for '--start-index <index>'"),
  ])
  func badOptionValueIsSaid(option: String, value: String, sentence: String) throws {
    try tour.expectUsage(sentence, option, value)
  }

  @Test func unknownAttackIsAnsweredWithThoseThereAre() throws {
    let run = try tour.run("--hostile", "everything")
    for known in ["everything", "too-many-requests", "backwards", "unasked-response"] {
      #expect(run.error.split(separator: "\n").first?.contains(known) == true)
    }
    #expect(run.output.isEmpty && run.exitCode == 64)
  }
}
