import XenPlatform
import XenRing

/// Both ends of one ring, walked step by step. After each step both print their line.
struct Tour: ~Copyable {
  let pages: PrivatePages
  let start: RingIndex
  var front: FrontRing<Question, Answer>
  var back: BackRing<Question, Answer>

  init(pageCount: Int, start: RingIndex) {
    pages = PrivatePages(pageCount: pageCount)
    self.start = start
    front = FrontRing(initialising: pages.region(), at: start)
    back = BackRing(attaching: pages.region(), at: start)
  }

  /// Once around for `count` questions; `count` is at least one and at most what the ring holds.
  mutating func walk(count: UInt32) throws(RingViolation) {
    show("The front end has initialised the page, the back end attached.")
    ask(1..<2)
    if count > 1 { ask(2..<count + 1) }
    let questions = try takeQuestions()
    for question in questions { back.put(Answer(to: question)) }
    show("The back end puts its responses into the slots of the requests.")
    let notifyFront = back.pushAndCheckNotify()
    show("The back end pushes them; the front end \(phrase(notifyFront)).")
    let moreQuestions = try back.finalCheck()
    show("The back end's final check finds \(moreQuestions ? "more requests" : "nothing: it may sleep").")
    let waiting = try front.available()
    print("Responses that the front end finds: \(waiting)")
    while let answer = front.next() { print("  answer \(answer.id): divisible by \(answer.divisor)") }
    show("The front end has taken them, and their slots are free again.")
    let moreAnswers = try front.finalCheck()
    show("The front end's final check finds \(moreAnswers ? "more responses" : "nothing: it may sleep").")
  }

  /// Lets one end break the rules, and returns what the other says of it; nil if it did not notice.
  mutating func attack(_ attack: Attack) -> RingViolation? {
    show("The front end has initialised the page, the back end attached.")
    let entryCount = UInt32(front.entryCount)
    do {
      switch attack {
      case .tooManyRequests:
        claimRequests(upTo: start.advanced(by: entryCount + 1))
        show("The front end claims \(entryCount + 1) requests in a ring of \(entryCount).")
        _ = try back.available()
      case .backwards:
        ask(1..<4)
        _ = try takeQuestions()
        claimRequests(upTo: start.advanced(by: 1))
        show("With 3 requests in flight, the front end moves its producer back by 2.")
        _ = try back.available()
      case .unaskedResponse:
        claimResponses(upTo: start.advanced(by: 1))
        show("The back end claims a response that nobody has asked for.")
        _ = try front.available()
      }
    } catch { return error }
    return nil
  }

  mutating func ask(_ ids: Range<UInt32>) {
    for id in ids { front.put(Question(id: id, number: 90 &+ id)) }
    show(
      "The front end puts \(ids.count == 1 ? "a question" : "\(ids.count) questions"); the back end sees nothing yet.")
    let notify = front.pushAndCheckNotify()
    show("The front end pushes; the back end \(phrase(notify)).")
  }

  mutating func takeQuestions() throws(RingViolation) -> [Question] {
    let waiting = try back.available()
    print("Requests that the back end finds: \(waiting)")
    var questions: [Question] = []
    while let question = back.next() {
      print("  question \(question.id): what divides \(question.number)?")
      questions.append(question)
    }
    show("The back end has taken them; they are in flight.")
    return questions
  }

  /// A front end that believes itself elsewhere: its push writes that index over the shared producer.
  func claimRequests(upTo index: RingIndex) {
    var liar = FrontRing<Question, Answer>(attaching: pages.region(), at: index)
    liar.push()
  }

  func claimResponses(upTo index: RingIndex) {
    var liar = BackRing<Question, Answer>(attaching: pages.region(), at: index)
    liar.push()
  }

  func show(_ step: String) { print("\(step)\n  \(front.dump())\n  \(back.dump())") }

  func phrase(_ notify: Bool) -> String { notify ? "must be notified" : "need not be notified" }
}
