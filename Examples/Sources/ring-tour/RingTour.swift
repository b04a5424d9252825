import ArgumentParser
import XenPlatform
import XenRing

/// What a hostile end does to the ring.
enum Attack: String, CaseIterable, ExpressibleByArgument {
  case tooManyRequests = "too-many-requests"
  case backwards
  case unaskedResponse = "unasked-response"
}

struct UnnoticedAttack: Error, CustomStringConvertible {
  let attack: Attack

  var description: String {
    "The other end did not notice \(attack.rawValue), which is a bug in XenRing: please report it."
  }
}

@main struct RingTour: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ring-tour",
    abstract: "Walks requests and responses once around a shared ring and shows each step.",
    discussion: """
      Both ends live in this process, over memory of its own; no hypervisor is needed. After each step each end prints \
      one line: its own indices, the four shared ones, and the notifications it has sent and been spared.

      Indices count up without end and wrap at 2^32. To watch that:

        ring-tour --start-index 4294967294
      """)

  @Option(
    help: ArgumentHelp("Where all four indices start, from 0 to 4294967295. Real rings start at 0.", valueName: "index")
  )
  var startIndex: UInt32 = 0

  @Option(help: ArgumentHelp("How many requests go around, at most as many as the ring has slots.", valueName: "count"))
  var requests: UInt32 = 3

  @Option(help: ArgumentHelp("Pages of ring, from 1 to 16.", valueName: "count"))
  var pages: Int = 1

  @Option(
    help: ArgumentHelp(
      "Let one end break the protocol instead, and show what the other makes of it.",
      discussion: "too-many-requests: the front end claims more requests than there are slots. "
        + "backwards: it takes requests back that are in flight. "
        + "unasked-response: the back end answers what nobody asked.",
      valueName: "attack"))
  var hostile: Attack?

  func validate() throws {
    guard (1...16).contains(pages) else { throw ValidationError("A ring has from 1 to 16 pages, not \(pages).") }
    let entryCount = RingLayout.entryCount(
      byteCount: pages * xenPageSize, stride: RingLayout.stride(Question.self, Answer.self))
    guard (1...UInt32(entryCount)).contains(requests) else {
      throw ValidationError(
        "A ring of \(pages == 1 ? "one page" : "\(pages) pages") takes from 1 to \(entryCount) requests at once, not \(requests)."
      )
    }
  }

  func run() throws {
    var tour = Tour(pageCount: pages, start: RingIndex(rawValue: startIndex))
    guard let hostile else { return try tour.walk(count: requests) }
    guard let violation = tour.attack(hostile) else {
      throw UnnoticedAttack(attack: hostile)
    }
    print("The ring is refused, and nothing else has happened: \(violation).")
  }
}
