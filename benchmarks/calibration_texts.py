"""What the bundled calibration clips say: TEXTS whole sentences, MORE sentences and short turns."""

TEXTS = """
I called the bank twice this week, but nobody could tell me why the payment was refused.
Mister Collins arrived at four o'clock with a bag of oranges and a very long story about his neighbour's dog.
If you want to change your order, please visit the page named my account and choose returns.
How long have you been waiting here? We could share a cab to the theatre if you like.
The committee approved a budget of three hundred and fifty thousand dollars for the new swimming pool.
She had never been fond of company, yet she could not refuse an invitation so kindly given.
Okay, so the first thing we need to do is back up the server, and then we restart it.
In nineteen eighty four the factory employed more than two thousand people, most of them women.
Professor Martinez explained that the planet's atmosphere contains very little oxygen and a great deal of methane.
I don't think that's a good idea. What if it breaks down on the highway in the middle of the night?
Welcome back to the show. Today we are talking about sleep, stress, and why Mondays feel so hard.
The judge listened carefully to both sides before she announced that the trial would continue in September.
There's a gentleman at the door who says he knew your father when they served in the navy.
Mix the butter with the sugar until it turns pale, then beat in the eggs one after another.
Our flight to Chicago has been delayed by ninety minutes because of thunder and lightning over the lake.
He spoke so quickly, and with such a strong accent, that hardly anyone understood the joke.
All of our agents are busy right now. Your call is important to us, so please stay on the line.
The goalkeeper dived to his left and pushed the ball against the post, and the whole stadium held its breath.
Whether the bones belong to a wolf or to a large dog, the scientists were unable to say.
Yes, I'd like to book a double room for two nights, with breakfast, from the ninth to the eleventh of June.
Far beyond the hills a thin column of smoke was rising, and the soldiers began to whisper among themselves.
You should drink more water and take these tablets twice a day after meals, said the nurse.
Prices for copper and wheat fell sharply yesterday, while oil remained almost unchanged at eighty one dollars.
What a wonderful surprise! I thought you were still in Australia with Emily and the twins.
The software checks every file for errors before it is sent, which is why the upload takes so long.
My grandmother kept a box of buttons on the shelf, and each of them had belonged to somebody she loved.
Turn right at the second traffic light, go past the petrol station, and you will see a yellow gate.
The prisoner was led into a narrow room where a single candle was burning on the table.
Honestly, the second season was boring, although the actor who played the detective was brilliant.
Between the sixth and the eighth century, monks copied thousands of books by hand in cold stone rooms.
Could somebody please tell Jennifer that her meeting with the lawyer has been moved to half past ten?
Volunteers planted six hundred young pines along the valley to protect the village from avalanches.
To hear this message again, say repeat. To delete it, say delete. For anything else, just hang up.
The violin was made in Italy, and it is said that its owner refused a million pounds for it.
Never in my life have I felt so foolish as when I walked on stage wearing two different boots.
The president thanked the firefighters and promised that every family would receive help before winter.
Let me check. Your balance is one hundred and twelve euros and forty cents, due on the fifteenth.
A magnet attracts iron and nickel, but wood, glass and plastic are not affected by it at all.
They laughed, they argued, and finally they agreed to sell the farm and divide the money equally.
Could you speak a little louder? The connection is bad and there's a lot of noise in the background.
The captain ordered his men to lower the boats, for the water had already reached the second deck.
Tonight's main course is grilled salmon with lemon, green asparagus, and potatoes from our own fields.
Well, you know, I used to run every day, but since I hurt my knee I mostly swim or cycle.
The exhibition shows early photographs of Paris, Vienna and Prague, together with letters from the artists.
Scientists in Norway discovered that young reindeer sleep with their eyes half open during the long summer days.
Ladies and gentlemen, we will shortly be landing. Please fasten your seat belts and put away your tables.
His voice trembled as he read the final page, and for a while none of us knew what to say.
The password must have at least twelve characters and should contain a number and a capital letter.
Across the street a boy with a red cap was selling peanuts, matches and yesterday's magazines.
I'm afraid the dishwasher isn't working. Could you send someone to repair it on Wednesday afternoon?
According to the report, unemployment dropped to five point two percent, the lowest level in a decade.
Once upon a time there was a miller who had three sons, a donkey, and a cat that could talk.
Thank you for your patience. Doctor Henderson will see you now, it's the third door on the right.
The river police searched the harbour all night, but they found nothing except an empty wooden box.
We ought to be grateful, he replied, that the roof has held through so many terrible storms.
Add the two numbers, multiply the result by seven, and write your solution at the bottom.
My colleague Thomas speaks Spanish, Russian and a bit of Japanese, which is handy at trade fairs.
Because the ice was too thin, the race had to be cancelled for the first time since nineteen sixty.
Do you remember the blue house near the beach where we spent every August when we were kids?
The queen, who was tired of flattery, asked the old gardener for his honest opinion instead.
Every passenger must show a valid passport, and liquids over one hundred millilitres are not allowed.
The microscope revealed tiny crystals that looked like feathers, stars and broken needles.
She whistled, and from behind the barn came a huge brown horse, followed by two curious goats.
So that is my question to you: would you rather be famous for a year or content forever?
"""
# Talkers in a clip's noise are of its own set: so the first has the samples that it had before there was a second.
MORE = """
The plumber came on Monday, fixed the tap in ten minutes, and charged us for two whole hours.
Please enter your account number, followed by the hash key, or stay on the line to speak to somebody.
A heron stood in the shallow water, perfectly still, as if it had been carved out of grey stone.
We drove through the night and reached the border just before sunrise, tired, hungry and very cold.
Her lecture on medieval bridges was, to everyone's surprise, the funniest part of the whole conference.
The recipe says two teaspoons of salt, but I would start with one and taste it first.
Three of the seven candidates withdrew after the debate, so the ballot had to be printed again.
It is not the cost that worries me, said the widow, it is what the children will think.
Heavy traffic on the ring road this morning, with a queue of four miles near the football ground.
The robot lifts the crate, turns through ninety degrees, and sets it down on the conveyor belt.
Nobody had warned the tourists that the cable car closes at five, so they walked down in the dark.
My sister's wedding is on the twenty third of May, and I still haven't found a pair of shoes.
In the attic we discovered a trunk full of maps, uniforms, and letters tied with green ribbon.
Is there a pharmacy nearby that stays open on Sundays, or should I try the one at the airport?
The printer is out of paper again, and the spare cartridges are locked in the manager's cupboard.
Light travels about three hundred thousand kilometres in one second, which is hard to imagine.
He apologised twice, yet his tone suggested that he would do exactly the same tomorrow.
The bakery smelled of cinnamon, and a line of people stretched all the way to the fountain.
Remember to save your work before you close the window, otherwise the last changes will be lost.
A gust of wind tore the umbrella out of her hands and carried it across the canal.
The minister refused to answer questions about the contract, and left by the side entrance.
Our guide pointed at the ceiling and explained why the painter had left one angel unfinished.
You can borrow my tent if you like, but the zip sticks and one of the poles is bent.
The orchestra will perform works by Haydn and Brahms on Thursday, the eleventh of November.
Between you and me, I think the old coach knew more about defending than all of them together.
Sorry to bother you so late, but there is water coming through the kitchen ceiling.
Two suspects were arrested in Manchester on Friday after a chase that lasted almost forty minutes.
The tortoise lives in the garden from April to October and sleeps in a box through the winter.
If the light on the front turns orange, hold the button for six seconds and let go.
They say that the general kept a diary, but no page of it has ever been found.
Our profit grew by eight percent, mainly because customers in Brazil and Mexico ordered more spare parts.
The baby laughed every time the train went past, so we stayed on that bench for an hour.
I read the contract from beginning to end, and I still don't know who pays for the insurance.
Boil the eggs for seven minutes, cool them under running water, and peel them while they're warm.
Somewhere in the forest an owl called, and a moment later another one answered.
The judge gave him a choice between a fine of nine hundred dollars and thirty hours of work.
Excuse me, is this seat taken? My friend and I would like to sit together.
Snow is expected above six hundred metres tonight, with icy roads in the eastern valleys.
The inventor sold his patent for almost nothing and regretted it for the rest of his days.
Take the lift to level four, turn left, and ask for Mrs Patel at the information desk.
Every evening the fishermen mend their nets on the quay and tell the same old stories.
The vaccine was tested on eleven thousand people in five countries before it was approved.
What I like best about this town is that you can hear the sea from almost every street.
Without a word she folded the letter, put it into the stove, and watched it burn.
Next song, please.
Turn the volume down.
Set a timer for fifteen minutes.
Cancel that.
What time is it?
Call me back when you can.
Lights off in the kitchen.
Thirteen, fourteen.
Good afternoon.
Is anybody there?
My surname is Walker, W A L K E R.
The postcode is K T four, nine D P.
Zero eight hundred, six one three, two seven.
Mhm, I see.
How much is it?
Sixteen pounds eighty.
Tomorrow at noon.
Read it to me once more.
I don't know.
Wrong number, sorry.
"""
