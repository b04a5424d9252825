import XenPlatform
import XenRing

/// As large as a block request, and as its response.
private struct Request: BitwiseCopyable { var words: InlineArray<28, UInt32> }
private struct Response: BitwiseCopyable { var words: InlineArray<4, UInt32> }

/// The page as the other end writes it, and an account of each end of the test's own.
///
/// One thread does everything, so that what an end found in the page can be computed again.
func fuzzRing(_ input: inout FuzzInput) {
  let start = input.next(UInt32.self)
  let pages = PrivatePages(pageCount: 1)
  let index = RingIndex(rawValue: start)
  var front = FrontRing<Request, Response>(initialising: pages.region(), at: index)
  var back = BackRing<Request, Response>(attaching: pages.region(), at: index)
  let entryCount = UInt32(front.entryCount)
  // Of the front end: put, pushed, taken and checked; of the back end the same.
  var (put, pushed, answersTaken, answersChecked) = (start, start, start, start)
  var (taken, checked, answered) = (start, start, start)

  while !input.isEmpty {
    switch input.next(UInt8.self) % 12 {
    case 0: pages.bytes.write(input.index(near: pages.bytes.word(at: 0)), at: 0)
    case 1: pages.bytes.write(input.index(near: pages.bytes.word(at: 8)), at: 8)
    case 2: pages.bytes.write(input.next(), at: 4 * input.below(16))
    case 3: pages.bytes.write(input.next(), at: 64 + 4 * input.below(1008))
    case 4:
      guard put &- answersTaken < entryCount else { break }
      front.put(Request(words: InlineArray(repeating: input.next())))
      put &+= 1
    case 5:
      if input.flag() { front.push() } else { _ = front.pushAndCheckNotify() }
      pushed = put
      require(pages.bytes.word(at: 0) == put, "our producer is what we have put")
    case 6:
      let word = pages.bytes.word(at: 8)
      let isHonest = word &- answersTaken <= pushed &- answersTaken
      do {
        let count = try front.available()
        require(isHonest, "\(word) passed with \(answersTaken) taken and \(pushed) pushed")
        require(count == word &- answersTaken, "as many responses as the page says")
        answersChecked = word
      } catch { require(!isHonest, "\(word) was refused with \(answersTaken) taken and \(pushed) pushed") }
    case 7:
      let offset = 64 + Int(answersTaken & (entryCount - 1)) * 112
      let response = front.next()
      require((response == nil) == (answersTaken == answersChecked), "a response only where one passed the check")
      guard let response else { break }
      require(response.words[3] == pages.bytes.word(at: offset + 12), "the response in its slot")
      answersTaken &+= 1
    case 8:
      let word = pages.bytes.word(at: 0)
      let isHonest = word &- taken <= entryCount &- (taken &- answered)
      do {
        let count = try input.flag() ? back.available() : UInt32(back.finalCheck() ? 1 : 0)
        require(isHonest, "\(word) passed with \(taken) taken and \(answered) answered")
        require(count <= word &- taken, "no more requests than the page says")
        checked = word
      } catch { require(!isHonest, "\(word) was refused with \(taken) taken and \(answered) answered") }
    case 9:
      let offset = 64 + Int(taken & (entryCount - 1)) * 112
      let request = back.next()
      require((request == nil) == (taken == checked), "a request only where one passed the check")
      guard let request else { break }
      require(request.words[27] == pages.bytes.word(at: offset + 108), "the request in its slot")
      taken &+= 1
    case 10:
      guard answered != taken else { break }
      back.put(Response(words: InlineArray(repeating: input.next())))
      answered &+= 1
    default:
      if input.flag() { back.push() } else { _ = back.pushAndCheckNotify() }
      require(pages.bytes.word(at: 8) == answered, "our producer is what we have put")
    }
    require(
      front.unansweredCount == put &- answersTaken && front.unansweredCount <= entryCount, "the front end's count")
    require(back.inFlightCount == taken &- answered && back.inFlightCount <= entryCount, "the back end's count")
  }
}

extension SharedBytes {
  func word(at offset: Int) -> UInt32 {
    slice(from: offset, count: 4).copied().reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  func write(_ word: UInt32, at offset: Int) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    slice(from: offset, count: 4).copy(from: bytes.span)
  }
}
